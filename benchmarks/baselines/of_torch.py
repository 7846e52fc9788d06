"""Contenders that run the source model in PyTorch, decode included.

In float32, or in half precision on a GPU where the bundle's engines are fp16.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from dyninfer.benchmarks.baselines.setup import Arrays, Contender, Kind, Setup, read_inputs
from dyninfer.benchmarks.latency.scenarios import ForcedWay
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.base import HostRead, OnHost
from dyninfer.errors import BackendUnavailable
from dyninfer.exporters.extras import require_export_extra
from dyninfer.runtime.executor import execute
from dyninfer.runtime.plan import plan
from dyninfer.types import Int64Array


class TorchContender(Contender):
    """The model as it comes from the checkpoint, or folded as for an export, or compiled as well.

    It is its own :class:`dyninfer.runtime.stage_runner.StageRunner`, on tensors of one image.

    Batch norm, branches and implicit layers are folded into the convolutions. A family whose
    models this project cannot fold runs as it is. On a GPU the image is copied there and the
    outputs back within a run; not yet run there by this project.
    """

    def __init__(self, setup: Setup) -> None:
        require_export_extra("a baseline in PyTorch")
        import torch

        torch.set_num_threads(setup.cores)
        bundle = Bundle.read(setup.model)
        self._manifest, self._plan = bundle.manifest, plan(bundle.manifest)
        self._device = torch.device(setup.engine.device or "cpu")
        modules, self.note = _modules(setup, bundle)
        half = use_half(setup.engine.precision, self._device.type)
        dtype = torch.float16 if half else torch.float32
        self._modules = {name: module.to(self._device, dtype) for name, module in modules.items()}
        inputs = read_inputs(setup).items()
        self._inputs = {name: torch.from_numpy(array).to(dtype) for name, array in inputs}
        if setup.kind is Kind.COMPILED:
            # what is compiled lies beside the contest's other files, and goes with them
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(setup.inputs).parent / "compiled")
            self._compile()
        if half:
            self.note = f"in half precision; {self.note}".removesuffix("; ")

    def _compile(self) -> None:
        import torch

        self._modules = {name: torch.compile(module) for name, module in self._modules.items()}
        start = time.perf_counter()
        for way in range(len(self._manifest.ways)):
            self.outputs(way)  # compiles what it meets for the first time
        seconds = time.perf_counter() - start
        self.note = f"compiled in {seconds:.0f} s, which is not in its times"

    def outputs(self, way: int) -> Arrays:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        import torch

        with torch.inference_mode():
            (group,) = execute(self._plan, self, 1, ForcedWay(way)).groups
        return dict(group.outputs)

    def feed(self, image_input: str, _rows: Int64Array) -> Any:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return self._inputs[image_input].to(self._device)

    def gather(
        self, _place: str, tensors: Mapping[str, Any], rows: Int64Array
    ) -> Mapping[str, Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return {name: tensor[rows] for name, tensor in tensors.items()}

    def read(self, tensors: Mapping[str, Any], rows: Int64Array | None) -> Mapping[str, HostRead]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return {
            name: OnHost((tensor if rows is None else tensor[rows]).cpu().numpy())
            for name, tensor in tensors.items()
        }

    def aside(self) -> AbstractContextManager[None]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return nullcontext()

    def run(self, stage: str, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        entry = self._manifest.stages[stage]
        made = self._modules[stage](*(tensors[spec.name] for spec in entry.inputs))
        made = made if isinstance(made, tuple) else (made,)
        return dict(zip((spec.name for spec in entry.outputs), made, strict=True))


def _modules(setup: Setup, bundle: Bundle) -> tuple[Mapping[str, Any], str]:
    """The stages as PyTorch modules by name, and what is to be said about them.

    Raises:
        BackendUnavailable: the bundle has no PyTorch source, or not for every stage.
    """
    from dyninfer.exporters.cascade.options import made_from_onnx
    from dyninfer.exporters.families import family_of, source_stages
    from dyninfer.exporters.family import TorchStage
    from dyninfer.exporters.sources import find_sources

    manifest = bundle.manifest
    if made_from_onnx(manifest):
        raise BackendUnavailable(f"{manifest.name} was made from ONNX files, not from PyTorch")
    sources = find_sources(manifest, bundle.path, [Path(path) for path in setup.sources])
    stages, note = source_stages(bundle, sources), ""
    if setup.kind is not Kind.EAGER:
        folded = family_of(bundle).fold(stages, manifest)
        note = "" if folded else f"{manifest.family} models are run without folding"
        stages = folded or stages
    modules = {
        name: stage.module for name, stage in stages.items() if isinstance(stage, TorchStage)
    }
    if missing := [name for name in manifest.stages if name not in modules]:
        raise BackendUnavailable(f"there is no PyTorch source of {', '.join(missing)}")
    return modules, note


def use_half(precision: str | None, device_type: str) -> bool:
    """Whether PyTorch runs in half precision; on a CPU that would only slow it down."""
    return precision == "fp16" and device_type == "cuda"
