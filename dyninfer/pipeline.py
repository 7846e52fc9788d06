"""The cascade: cheap stages first, and the next exit only for the rows that need it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle import Bundle
from dyninfer.engines.base import Backend, Engine
from dyninfer.errors import InputError, PolicyError
from dyninfer.manifest import Exit
from dyninfer.policy import Policy
from dyninfer.types import BoolArray, Float32Array, Int64Array

logger = logging.getLogger("dyninfer")

ImageFeed = Callable[[str, Int64Array, Any], Float32Array]
"""(image input's name, rows of the batch, workspace) -> prepared (len(rows), 3, H, W)."""


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
    counts. ``stage_ms`` maps a stage to (milliseconds, rows it ran for).
    """

    batch: int
    easiness: Float32Array
    groups: list[ExitGroup] = field(default_factory=list)
    stage_ms: dict[str, tuple[float, Int64Array]] = field(default_factory=dict)

    def timings_of(self, row: int) -> dict[str, float]:
        """Stage -> milliseconds for one image: an equal share of what its batch took."""
        return {stage: ms / len(rows) for stage, (ms, rows) in self.stage_ms.items() if row in rows}


class CascadePipeline:
    """Runs the exits of a bundle on one backend.

    Any number of threads may call :meth:`run` at once; each borrows its own workspace.
    """

    def __init__(self, bundle: Bundle, backend: Backend[Any, Any]) -> None:
        self.manifest = bundle.manifest
        self.backend = backend
        self._free_workspaces: list[Any] = []
        self._workspace_lock = threading.Lock()
        self._warned_nan = False
        self.nan_easiness_count = 0
        self.engines: dict[str, Engine[Any, Any]] = {}
        try:
            for exit_ in self.manifest.exits:
                for name in exit_.stages:
                    self.engines[name] = backend.open(
                        name,
                        self.manifest.stages[name],
                        bundle.stage_path(name),
                        self._host_outputs(exit_, name),
                    )
        except BaseException:
            self.close()
            raise

    def _host_outputs(self, exit_: Exit, stage: str) -> frozenset[str]:
        """The router's easiness and an exit's final outputs are read by the host."""
        if stage == exit_.router:
            return frozenset(spec.name for spec in self.manifest.stages[stage].outputs)
        if stage == (exit_.head or exit_.body):
            return frozenset(self.manifest.task.outputs)
        return frozenset()

    def check_policy(self, policy: Policy) -> None:
        """Refuse a policy that this bundle cannot follow.

        Raises:
            PolicyError: it reads an easiness that no router computes, or does not fit the exits.
        """
        if policy.needs_router and not self.manifest.has_routers:
            raise PolicyError(
                f"{type(policy).__name__} reads an easiness, but {self.manifest.name} has no "
                "router; use AlwaysEasy or AlwaysHard, or train a router first"
            )
        check_exits = getattr(policy, "check_exits", None)
        if check_exits is not None:
            check_exits(len(self.manifest.exits))

    @contextmanager
    def workspace(self) -> Iterator[Any]:
        """Borrow buffers that no other thread uses."""
        with self._workspace_lock:
            workspace = self._free_workspaces.pop() if self._free_workspaces else None
        if workspace is None:
            workspace = self.backend.workspace()
        try:
            yield workspace
        finally:
            with self._workspace_lock:
                self._free_workspaces.append(workspace)

    def run(self, feed: ImageFeed, batch: int, policy: Policy, workspace: Any) -> BatchResult:
        """Run a batch through as many exits as the policy asks for.

        Args:
            feed: gives prepared images; asked only for rows that reach a stage that reads them.
            batch: number of images N, at least 1.
            policy: splits the batch after every exit but the last.
            workspace: from :meth:`workspace`; the result is valid until it is used again.
        """
        result = BatchResult(batch, np.full(batch, np.nan, np.float32))
        rows = np.arange(batch)
        tensors: dict[str, Any] = {}
        last = len(self.manifest.exits) - 1
        for index, exit_ in enumerate(self.manifest.exits):
            self._feed_images(exit_, feed, rows, tensors, workspace)
            tensors |= self._run_stage(exit_.body, tensors, rows, result, workspace)
            if exit_.router:
                scores = self._run_stage(exit_.router, tensors, rows, result, workspace)
                result.easiness[rows] = _one_per_row(scores["easiness"].numpy())
            continues = (
                np.zeros(len(rows), np.bool_)
                if index == last
                else self._decide(policy, result.easiness[rows], index)
            )
            leaving = np.flatnonzero(~continues)
            if len(leaving):
                group = self._leave(index, exit_, tensors, rows, leaving, result, workspace)
                result.groups.append(group)
            staying = np.flatnonzero(continues)
            if not len(staying):
                break
            tensors = self._select(
                self.manifest.needed_from(index + 1), tensors, staying, len(rows), "on", workspace
            )
            rows = rows[staying]
        return result

    def _feed_images(
        self,
        exit_: Exit,
        feed: ImageFeed,
        rows: Int64Array,
        tensors: dict[str, Any],
        workspace: Any,
    ) -> None:
        for name in exit_.stages:
            for spec in self.manifest.stages[name].inputs:
                if spec.name in self.manifest.image_inputs and spec.name not in tensors:
                    images = feed(spec.name, rows, workspace)
                    tensors[spec.name] = self.backend.from_host(images)

    def _run_stage(
        self,
        name: str,
        tensors: Mapping[str, Any],
        rows: Int64Array,
        result: BatchResult,
        workspace: Any,
    ) -> dict[str, Any]:
        start = time.perf_counter_ns()
        outputs = self.engines[name].run(tensors, workspace)
        result.stage_ms[name] = ((time.perf_counter_ns() - start) / 1e6, rows)
        return outputs

    def _decide(self, policy: Policy, easiness: Float32Array, exit_index: int) -> BoolArray:
        if policy.needs_router and np.isnan(easiness).any():
            self._report_nan(int(np.isnan(easiness).sum()))
        return policy.continues(easiness, exit_index)

    def _report_nan(self, count: int) -> None:
        with self._workspace_lock:
            self.nan_easiness_count += count
            first, self._warned_nan = not self._warned_nan, True
        if first:
            logger.warning(
                "the router of %s returned NaN; such images are treated as hard "
                "(counted in nan_easiness_count, not reported again)",
                self.manifest.name,
            )

    def _leave(
        self,
        index: int,
        exit_: Exit,
        tensors: Mapping[str, Any],
        rows: Int64Array,
        leaving: Int64Array,
        result: BatchResult,
        workspace: Any,
    ) -> ExitGroup:
        """Run the head for the rows that leave here, or take the body's own outputs."""
        names = self.manifest.task.outputs
        if exit_.head is None:
            outputs = {name: tensors[name].numpy()[leaving] for name in names}
            return ExitGroup(index, rows[leaving], outputs)
        needed = frozenset(spec.name for spec in self.manifest.stages[exit_.head].inputs)
        inputs = self._select(needed, tensors, leaving, len(rows), "off", workspace)
        tensors = self._run_stage(exit_.head, inputs, rows[leaving], result, workspace)
        return ExitGroup(index, rows[leaving], {name: tensors[name].numpy() for name in names})

    def _select(
        self,
        names: frozenset[str],
        tensors: Mapping[str, Any],
        chosen: Int64Array,
        batch: int,
        purpose: str,
        workspace: Any,
    ) -> dict[str, Any]:
        """The named tensors for the chosen rows; where all are chosen, as they are."""
        kept = {name: tensor for name, tensor in tensors.items() if name in names}
        if len(chosen) == batch:
            return kept
        return {
            name: self.backend.gather(f"{name} {purpose}", tensor, chosen, workspace)
            for name, tensor in kept.items()
        }

    def close(self) -> None:
        """Free all engines and buffers."""
        with self._workspace_lock:
            self._free_workspaces.clear()
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()


def _one_per_row(easiness: npt.NDArray[Any]) -> Float32Array:
    """(N,) from (N,) or (N, 1)."""
    if easiness.size != len(easiness):
        raise InputError(f"a router returned {easiness.shape}, expected one easiness per image")
    return easiness.reshape(-1).astype(np.float32, copy=False)
