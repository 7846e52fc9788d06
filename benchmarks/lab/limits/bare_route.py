"""A route's sessions run by hand, with everything bound beforehand: the least a call can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort.runtime import SMALL_MACS, OrtDevice, open_session
from dyninfer.engines.threads import is_tiny
from dyninfer.routing.policy import Forced
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.executor import execute
from dyninfer.runtime.plan import plan
from dyninfer.runtime.stage_runner import Arrays

CPU = OrtDevice("cpu", 0, "cpu")


class BareRoute:
    """Sessions of a bundle, opened with the options that dyninfer gives them."""

    def __init__(self, bundle: Path) -> None:
        opened = Bundle.open(bundle)
        self.manifest = opened.manifest
        self._plan = plan(self.manifest)
        self._sessions = {
            name: open_session(
                opened.stage_path(name),
                CPU,
                small=self.manifest.stages[name].macs <= SMALL_MACS,
                lone=is_tiny(self.manifest.stages[name]),
            )
            for name in self.manifest.roles
        }

    def bind(self, images: Mapping[str, npt.NDArray[Any]], ways: Sequence[int]) -> BoundRoute:
        """Everything that runs for a batch whose ways are known, bound to memory of its own."""
        route = BoundRoute()
        runner = ArrayRunner(images, partial(self._bind_stage, route))
        execute(self._plan, runner, len(ways), Forced(ways))
        return route

    def _bind_stage(self, route: BoundRoute, name: str, tensors: Arrays) -> Arrays:
        """Run a stage once into new memory, and bind it for good."""
        session, stage = self._sessions[name], self.manifest.stages[name]
        inputs = {spec.name: tensors[spec.name] for spec in stage.inputs}
        made = session.run(None, inputs)
        outputs = dict(zip((spec.name for spec in stage.outputs), made, strict=True))
        binding = session.io_binding()
        for tensor, array in inputs.items():
            binding.bind_input(tensor, *_place(array))
        for tensor, array in outputs.items():
            binding.bind_output(tensor, *_place(array))
        route.memory.extend((inputs, outputs))  # bindings know addresses only
        route.runs.append((session, binding))
        return outputs


@dataclass(frozen=True)
class BoundRoute:
    """Sessions and bindings in the order in which they run, and the arrays that they use."""

    runs: list[tuple[Any, Any]] = field(default_factory=list)
    memory: list[Arrays] = field(default_factory=list)

    def run(self) -> None:
        """Run all sessions, one after the other."""
        for session, binding in self.runs:
            session.run_with_iobinding(binding)


def _place(array: npt.NDArray[Any]) -> tuple[str, int, type, tuple[int, ...], int]:
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
