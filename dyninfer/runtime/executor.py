"""One batch on its way through the exits of a cascade."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import EASINESS
from dyninfer.engines.base import Backend, HostRead
from dyninfer.engines.device_array import DeviceArray
from dyninfer.errors import InputError
from dyninfer.routing.policy import Policy
from dyninfer.runtime.plan import PlannedExit, PlannedStage
from dyninfer.spans import GATHER, READ_BACK, Span, on_device
from dyninfer.types import Float32Array, Int64Array

ImageFeed = Callable[[str, Int64Array, Any], Float32Array | DeviceArray]
"""(image input's name, rows of the batch, workspace) -> prepared (len(rows), 3, H, W).

An array on a GPU is given whole, for all rows of the batch; those that are asked for are gathered
there.
"""


@dataclass(frozen=True)
class ExitGroup:
    """The images of a batch that left at one exit.

    ``rows`` are their positions in the batch; ``outputs`` are arrays with one row for each, and
    views into the workspace: copy what must outlive it.
    """

    exit_index: int
    rows: Sequence[int]
    outputs: Mapping[str, npt.NDArray[Any]]


@dataclass
class BatchResult:
    """What a batch produced: groups by exit, the easiness of every image, and times.

    ``easiness`` is (N,) float32, NaN where no router ran; the last router that saw an image
    counts. ``nan_rows`` are the images that went on because a router said NaN. ``spans`` are the
    stages that ran, gathers and read-backs, none of which overlap.
    """

    easiness: Float32Array
    groups: list[ExitGroup] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    nan_rows: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Stages:
    """Everything of an opened cascade that does not change from batch to batch.

    With ``speculative_head`` the first head starts for all rows while the easiness travels to the
    host; what it makes of rows that go on is thrown away. Worth it where the head is cheap
    beside the wait, as on a GPU in batches of one. ``outputs`` names what every exit ends in.
    """

    exits: Sequence[PlannedExit]
    backend: Backend[Any, Any]
    outputs: tuple[str, ...]
    speculative_head: bool = False


@dataclass(frozen=True)
class _Leaving:
    """Rows that leave at an exit, their outputs still on the way to the host."""

    exit_index: int
    rows: Sequence[int]
    reads: Mapping[str, HostRead]


class BatchRun:
    """Runs a batch: body, router, decision, head, and on with the rows that are left.

    ``rows`` are the positions, in the batch, of the images that are still on their way, and
    ``tensors`` what was computed for exactly these so far, by name.

    On a GPU everything is only enqueued; the host waits for the easiness of each exit, and at the
    end for the outputs.
    """

    def __init__(self, stages: Stages, feed: ImageFeed, batch: int, workspace: Any) -> None:
        self.stages = stages
        self.feed = feed
        self.workspace = workspace
        self.rows: Int64Array = np.arange(batch)
        self._numbers: Sequence[int] = range(batch)  # the same, as Python's own
        self._place: Int64Array | slice = slice(None)  # the same, to index the whole batch
        self.tensors: dict[str, Any] = {}
        self._leaving: list[_Leaving] = []
        self._spans: list[Span] = []
        self.result = BatchResult(np.full(batch, np.nan, np.float32))

    def run(self, policy: Policy) -> BatchResult:
        """Run until every image has left."""
        exits = self.stages.exits
        for index, exit_ in enumerate(exits):
            for name in exit_.images:
                if name not in self.tensors:
                    self.tensors[name] = self._images(name)
            self.tensors |= self._run_stage(exit_.body, self.tensors, self._numbers)
            early = self._score(index, exit_, policy) if exit_.router else None
            if index == len(exits) - 1:
                self._leave(index, exit_, None, early)
                break
            continues = policy.continues(self._easiness_now(), index)
            staying = np.count_nonzero(continues)
            if not staying:
                self._leave(index, exit_, None, early)
                break
            if staying < len(self.rows):
                self._leave(index, exit_, np.flatnonzero(~continues), early)
                self._go_on(index, exit_, np.flatnonzero(continues))
        self._finish()
        return self.result

    def _go_on(self, index: int, exit_: PlannedExit, staying: Int64Array) -> None:
        """Narrow everything down to the rows that stay; they are positions among the present."""
        self.tensors = self._select(exit_.needed_after, staying, f"on from {index}")
        self._place = self.rows = self.rows[staying]
        self._numbers = self.rows.tolist()

    def _finish(self) -> None:
        """Wait for the outputs; what the device's clock says of stages counts."""
        for leaving in self._leaving:
            start = time.perf_counter_ns()
            outputs = {name: read.numpy() for name, read in leaving.reads.items()}
            self._note(READ_BACK, start, leaving.rows)
            self.result.groups.append(ExitGroup(leaving.exit_index, leaving.rows, outputs))
        self.result.spans = on_device(self._spans, self.workspace.device_spans())

    def _easiness_now(self) -> Float32Array:
        """Of the rows on their way, as a copy: a policy may do with it what it likes."""
        easiness: Float32Array = self.result.easiness[self._place].copy()
        return easiness

    def _note(self, name: str, start_ns: int, rows: Sequence[int]) -> None:
        """Take down what was begun at ``start_ns`` and has ended now."""
        self._spans.append(Span(name, (time.perf_counter_ns() - start_ns) / 1e6, rows))

    def _score(self, index: int, exit_: PlannedExit, policy: Policy) -> dict[str, Any] | None:
        """Run the router and wait for the easiness; returns what the head made meanwhile, if so."""
        assert exit_.router is not None  # the caller has looked
        scores = self._run_stage(exit_.router, self.tensors, self._numbers)
        reading = scores[EASINESS].to_host()
        early = None
        if self.stages.speculative_head and index == 0 and exit_.head and policy.needs_router:
            early = self._run_stage(exit_.head, self.tensors, self._numbers)
        start = time.perf_counter_ns()
        easiness = _one_per_row(reading.numpy())
        self._note(READ_BACK, start, self._numbers)
        self.result.easiness[self._place] = easiness
        if policy.needs_router and np.isnan(easiness).any():
            self.result.nan_rows.update(self.rows[np.isnan(easiness)].tolist())
        return early

    def _images(self, name: str) -> Any:
        """The images of an input for the rows on their way."""
        images, backend = self.feed(name, self.rows, self.workspace), self.stages.backend
        if not isinstance(images, DeviceArray):
            return backend.from_host(images)
        tensor = backend.from_device(name, images, self.workspace)
        if len(images) == len(self.rows):
            return tensor
        start = time.perf_counter_ns()
        gathered = backend.gather(f"{name} fed", tensor, self.rows, self.workspace)
        self._note(GATHER, start, self._numbers)
        return gathered

    def _run_stage(
        self, stage: PlannedStage, tensors: Mapping[str, Any], rows: Sequence[int]
    ) -> dict[str, Any]:
        start = time.perf_counter_ns()
        outputs = stage.engine.run(tensors, self.workspace)
        self._note(stage.name, start, rows)
        return outputs

    def _leave(
        self,
        index: int,
        exit_: PlannedExit,
        leaving: Int64Array | None,
        early: dict[str, Any] | None,
    ) -> None:
        """Run the head for the rows that leave here, or take what the body or it made already.

        ``leaving`` are positions among :attr:`rows`; None for all of them.
        """
        rows = self._numbers if leaving is None else self.rows[leaving].tolist()
        chosen = leaving
        if exit_.head is None:
            made: Mapping[str, Any] = self.tensors
        elif early is not None:
            made = early
        else:
            inputs = self._select(exit_.head.reads, leaving, f"off at {index}")
            made, chosen = self._run_stage(exit_.head, inputs, rows), None
        start = time.perf_counter_ns()
        reads = {name: made[name].to_host(chosen) for name in self.stages.outputs}
        self._note(READ_BACK, start, rows)
        self._leaving.append(_Leaving(index, rows, reads))

    def _select(
        self, names: frozenset[str], chosen: Int64Array | None, purpose: str
    ) -> dict[str, Any]:
        """The named tensors for the chosen rows; where all are chosen (None), as they are.

        ``purpose`` keeps the buffers of different splits apart: a tensor that is gathered at two
        exits must not be gathered onto itself.
        """
        if chosen is None:
            return self.tensors
        start = time.perf_counter_ns()
        gather = self.stages.backend.gather
        selected = {
            name: gather(f"{name} {purpose}", tensor, chosen, self.workspace)
            for name, tensor in self.tensors.items()
            if name in names
        }
        self._note(GATHER, start, self.rows[chosen].tolist())
        return selected


def _one_per_row(easiness: npt.NDArray[Any]) -> Float32Array:
    """(N,) from (N,) or (N, 1)."""
    if easiness.size != len(easiness):
        raise InputError(f"a router returned {easiness.shape}, expected one easiness per image")
    return easiness.reshape(-1).astype(np.float32, copy=False)
