"""A cascade's sessions run by hand, with everything bound beforehand: the least a call can take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Exit, Stage
from dyninfer.engines.ort.runtime import SMALL_MACS, OrtDevice, open_session
from dyninfer.errors import InputError

CPU = OrtDevice("cpu", 0, "cpu")
EXITS = 2
_Arrays = dict[str, npt.NDArray[Any]]


class BareRoute:
    """Sessions of a cascade of two exits, opened with the options that dyninfer gives them.

    Args:
        bundle: with float32 or float16 files for any batch.

    Raises:
        InputError: the bundle is not a cascade of two exits.
    """

    def __init__(self, bundle: Path) -> None:
        opened = Bundle.open(bundle)
        self.manifest = opened.manifest
        if len(self.manifest.exits) != EXITS:
            raise InputError(
                f"{bundle} has {len(self.manifest.exits)} exits, expected a cascade of {EXITS}"
            )
        self._sessions = {
            name: open_session(
                opened.stage_path(name),
                CPU,
                shared_threads=False,
                small=self.manifest.stages[name].macs <= SMALL_MACS,
            )
            for exit_ in self.manifest.exits
            for name in exit_.stages
        }

    def bind(self, images: _Arrays, hard_rows: Sequence[int]) -> BoundRoute:
        """Everything that runs for a batch of which some rows go on, bound to memory of its own.

        Args:
            images: image input's name -> (N, 3, H, W) float32.
            hard_rows: those that reach the last exit; the others leave at the first.
        """
        first, last = self.manifest.exits
        batch = len(next(iter(images.values())))
        easy = [row for row in range(batch) if row not in set(hard_rows)]
        route = BoundRoute()
        seen = self._bind_stage(first.body, images, route)
        if first.router:
            self._bind_stage(first.router, seen, route)
        if easy and first.head:
            self._bind_stage(first.head, _rows(seen, easy), route)
        if hard_rows:
            seen = self._bind_stage(last.body, _rows(seen, list(hard_rows)), route)
            self._bind_last_head(last, seen, route)
        return route

    def _bind_last_head(self, last: Exit, seen: _Arrays, route: BoundRoute) -> None:
        if last.head:
            self._bind_stage(last.head, seen, route)

    def _bind_stage(self, name: str, seen: _Arrays, route: BoundRoute) -> _Arrays:
        """Run a stage once into new memory, and bind it for good; returns what is known by then."""
        session, stage = self._sessions[name], self.manifest.stages[name]
        inputs = {spec.name: seen[spec.name] for spec in stage.inputs}
        made = session.run(None, inputs)
        outputs = dict(zip((spec.name for spec in stage.outputs), made, strict=True))
        route.add(session, stage, inputs, outputs)
        return {**seen, **outputs}


def _rows(arrays: _Arrays, rows: list[int]) -> _Arrays:
    return {name: np.ascontiguousarray(array[rows]) for name, array in arrays.items()}


class BoundRoute:
    """Sessions and bindings in the order in which they run."""

    def __init__(self) -> None:
        self._runs: list[tuple[Any, Any]] = []
        self._memory: list[_Arrays] = []

    def add(self, session: Any, stage: Stage, inputs: _Arrays, outputs: _Arrays) -> None:
        """Add a session that reads and writes these arrays."""
        binding = session.io_binding()
        for spec in stage.inputs:
            binding.bind_input(spec.name, *_place(inputs[spec.name]))
        for spec in stage.outputs:
            binding.bind_output(spec.name, *_place(outputs[spec.name]))
        self._memory += [inputs, outputs]  # bindings know addresses only
        self._runs.append((session, binding))

    def run(self) -> None:
        """Run all sessions, one after the other."""
        for session, binding in self._runs:
            session.run_with_iobinding(binding)


def _place(array: npt.NDArray[Any]) -> tuple[str, int, type, tuple[int, ...], int]:
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
