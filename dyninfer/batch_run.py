"""One batch on its way through the exits of a cascade."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import Backend, Engine, HostRead
from dyninfer.engines.device_array import DeviceArray
from dyninfer.errors import InputError
from dyninfer.manifest import EASINESS, Exit, Manifest
from dyninfer.policy import Policy
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
    rows: Int64Array
    outputs: Mapping[str, npt.NDArray[Any]]


@dataclass
class BatchResult:
    """What a batch produced: groups by exit, the easiness of every image, and times.

    ``easiness`` is (N,) float32, NaN where no router ran; the last router that saw an image
    counts. ``nan_rows`` are the images that went on because a router said NaN. ``stage_ms`` maps
    a stage to (milliseconds, rows it ran for).
    """

    easiness: Float32Array
    groups: list[ExitGroup] = field(default_factory=list)
    stage_ms: dict[str, tuple[float, Int64Array]] = field(default_factory=dict)
    nan_rows: set[int] = field(default_factory=set)

    def timings_of(self, row: int) -> dict[str, float]:
        """Stage -> milliseconds for one image: an equal share of what its batch took."""
        return {stage: ms / len(rows) for stage, (ms, rows) in self.stage_ms.items() if row in rows}


@dataclass(frozen=True)
class Stages:
    """Everything of an opened cascade that does not change from batch to batch.

    With ``speculative_head`` the first head starts for all rows while the easiness travels to the
    host; what it makes of rows that go on is thrown away. Worth it where the head is cheap
    beside the wait, as on a GPU in batches of one.
    """

    manifest: Manifest
    engines: Mapping[str, Engine[Any, Any]]
    backend: Backend[Any, Any]
    speculative_head: bool = False


@dataclass(frozen=True)
class _Leaving:
    """Rows that leave at an exit, their outputs still on the way to the host."""

    exit_index: int
    rows: Int64Array
    reads: Mapping[str, HostRead]

    def group(self) -> ExitGroup:
        """The group, once its values are there."""
        outputs = {name: read.numpy() for name, read in self.reads.items()}
        return ExitGroup(self.exit_index, self.rows, outputs)


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
        self.tensors: dict[str, Any] = {}
        self._gather_ns = 0
        self._leaving: list[_Leaving] = []
        self.result = BatchResult(np.full(batch, np.nan, np.float32))

    def run(self, policy: Policy) -> BatchResult:
        """Run until every image has left."""
        exits = self.stages.manifest.exits
        for index, exit_ in enumerate(exits):
            self._feed_images(exit_)
            self.tensors |= self._run_stage(exit_.body, self.tensors, self.rows)
            early = self._score(index, exit_, policy) if exit_.router else None
            if index == len(exits) - 1:
                continues = np.zeros(len(self.rows), np.bool_)
            else:
                continues = policy.continues(self.result.easiness[self.rows], index)
            leaving, staying = np.flatnonzero(~continues), np.flatnonzero(continues)
            if len(leaving):
                self._leaving.append(self._leave(index, exit_, leaving, early))
            if not len(staying):
                break
            needed = self.stages.manifest.needed_from(index + 1)
            self.tensors = self._select(needed, staying, f"on from {index}")
            self.rows = self.rows[staying]
        for stage, ms in self.workspace.device_ms().items():
            self.result.stage_ms[stage] = (ms, self.result.stage_ms[stage][1])
        self.result.groups += [leaving.group() for leaving in self._leaving]
        return self.result

    def _score(self, index: int, exit_: Exit, policy: Policy) -> dict[str, Any] | None:
        """Run the router and wait for the easiness; returns what the head made meanwhile, if so."""
        assert exit_.router is not None  # the caller has looked
        scores = self._run_stage(exit_.router, self.tensors, self.rows)
        reading = scores[EASINESS].to_host()
        early = None
        if self.stages.speculative_head and index == 0 and exit_.head and policy.needs_router:
            early = self._run_stage(exit_.head, self.tensors, self.rows)
        easiness = _one_per_row(reading.numpy())
        self.result.easiness[self.rows] = easiness
        if policy.needs_router:
            self.result.nan_rows.update(self.rows[np.isnan(easiness)].tolist())
        return early

    def _feed_images(self, exit_: Exit) -> None:
        """Ask for the images that this exit reads, for the rows that have reached it."""
        manifest = self.stages.manifest
        for name in exit_.stages:
            for spec in manifest.stages[name].inputs:
                if spec.name in manifest.image_inputs and spec.name not in self.tensors:
                    self.tensors[spec.name] = self._images(spec.name)

    def _images(self, name: str) -> Any:
        """The images of an input for the rows on their way."""
        images, backend = self.feed(name, self.rows, self.workspace), self.stages.backend
        if not isinstance(images, DeviceArray):
            return backend.from_host(images)
        tensor = backend.from_device(name, images, self.workspace)
        if len(images) == len(self.rows):
            return tensor
        return backend.gather(f"{name} fed", tensor, self.rows, self.workspace)

    def _run_stage(self, name: str, tensors: Mapping[str, Any], rows: Int64Array) -> dict[str, Any]:
        """Run a stage; its time includes gathering the rows it runs for."""
        start = time.perf_counter_ns()
        outputs = self.stages.engines[name].run(tensors, self.workspace)
        spent_ns = time.perf_counter_ns() - start + self._gather_ns
        self._gather_ns = 0
        self.result.stage_ms[name] = (spent_ns / 1e6, rows)
        return outputs

    def _leave(
        self, index: int, exit_: Exit, leaving: Int64Array, early: dict[str, Any] | None
    ) -> _Leaving:
        """Run the head for the rows that leave here, or take what the body or it made already."""
        manifest = self.stages.manifest
        names, rows = manifest.task.outputs, self.rows[leaving]
        if exit_.head is None or early is not None:
            made = self.tensors if early is None else early
            chosen = None if len(leaving) == len(self.rows) else leaving
            return _Leaving(index, rows, {name: made[name].to_host(chosen) for name in names})
        needed = frozenset(spec.name for spec in manifest.stages[exit_.head].inputs)
        inputs = self._select(needed, leaving, f"off at {index}")
        made = self._run_stage(exit_.head, inputs, rows)
        return _Leaving(index, rows, {name: made[name].to_host() for name in names})

    def _select(self, names: frozenset[str], chosen: Int64Array, purpose: str) -> dict[str, Any]:
        """The named tensors for the chosen rows; where all are chosen, as they are.

        ``purpose`` keeps the buffers of different splits apart: a tensor that is gathered at two
        exits must not be gathered onto itself.
        """
        kept = {name: tensor for name, tensor in self.tensors.items() if name in names}
        if len(chosen) == len(self.rows):
            return kept
        start = time.perf_counter_ns()
        gather = self.stages.backend.gather
        selected = {
            name: gather(f"{name} {purpose}", tensor, chosen, self.workspace)
            for name, tensor in kept.items()
        }
        self._gather_ns += time.perf_counter_ns() - start
        return selected


def _one_per_row(easiness: npt.NDArray[Any]) -> Float32Array:
    """(N,) from (N,) or (N, 1)."""
    if easiness.size != len(easiness):
        raise InputError(f"a router returned {easiness.shape}, expected one easiness per image")
    return easiness.reshape(-1).astype(np.float32, copy=False)
