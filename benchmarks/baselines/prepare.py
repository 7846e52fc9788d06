"""What has to be there before contenders can open: the image, the single graph, their setups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.benchmarks.baselines import names
from dyninfer.benchmarks.baselines.child import Child
from dyninfer.benchmarks.baselines.of_bundle import stage_files
from dyninfer.benchmarks.baselines.setup import Kind, Setup
from dyninfer.bundle.manifest import Manifest
from dyninfer.hardware import usable_cores
from dyninfer.images.spec import ImageSpec
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.types import Float32Array

GRAPH_MODULE = "dyninfer.benchmarks.baselines.single_graph"
IF_KINDS = (Kind.IF_OWN_POOL, Kind.IF_SHARED_POOL)


@dataclass(frozen=True)
class Contestants:
    """What all contenders of a contest share; ``folder`` is for files that the contest makes.

    PyTorch's ``sources`` and ``config`` are those of :class:`Setup`.
    """

    bundle: Path
    manifest: Manifest
    engine: EngineChoice
    folder: Path
    sources: tuple[Path, ...] = ()
    config: Path | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of every process: what torch.compile writes goes into the contest's folder."""
        return {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}

    def setup(self, kind: Kind, model: Path | str | None = None) -> Setup:
        """The setup of a contender that needs no more than a file, by default the bundle."""
        return Setup(
            kind=kind,
            inputs=str(self.folder / "inputs.npz"),
            model=str(model or self.bundle),
            engine=self.engine,
            cores=usable_cores(),
            stage_files=self._stage_files() if kind is Kind.NAIVE else {},
            sources=tuple(map(str, self.sources)),
            config=str(self.config) if self.config else None,
        )

    def _stage_files(self) -> dict[str, str]:
        """The files that dyninfer opens with ONNX Runtime; the bundle's own for other backends."""
        on_ort = self.engine.backend in (None, "onnxruntime")
        precision = self.engine.precision if on_ort else None
        return {name: str(file) for name, file in stage_files(self.bundle, precision).items()}

    def write_inputs(self) -> None:
        """Draw the image that everybody gets."""
        rng = np.random.default_rng(0)
        specs = self.manifest.image_inputs
        arrays = {name: noise_image(spec, rng) for name, spec in specs.items()}
        np.savez(self.folder / "inputs.npz", **arrays)  # type: ignore[arg-type]  # any arrays

    def setups_of(self, name: str) -> Sequence[Setup]:
        """What a baseline opens; the single graph has a setup for each thread pool.

        Raises:
            DyninferError: it cannot be made from this bundle.
        """
        if name == names.SINGLE_GRAPH:
            graph = self._write_graph()
            return [self.setup(kind, graph) for kind in IF_KINDS]
        if names.is_onnx_file(name):
            return [self.setup(Kind.FOREIGN, Path(name).resolve())]
        return [self.setup(Kind(name))]

    def _write_graph(self) -> Path:
        output = self.folder / "single_graph.onnx"
        files = self._stage_files()
        with Child(GRAPH_MODULE) as child:
            child.ask({"bundle": str(self.bundle), "output": str(output), "files": files})
        return output


def noise_image(spec: ImageSpec, rng: np.random.Generator) -> Float32Array:
    """Uniform noise (1, 3, H, W) between what black and white become."""
    mean, std = (np.array(n, np.float32).reshape(3, 1, 1) for n in (spec.mean, spec.std))
    black, white = -mean / std, (255 - mean) / std
    noise = rng.random((1, 3, spec.height, spec.width), np.float32)
    image: Float32Array = black + noise * (white - black)
    return image
