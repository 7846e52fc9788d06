"""The cascade: cheap stages first, and the next exit only for the rows that need it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dyninfer.batch_run import BatchResult, BatchRun, ImageFeed, Stages
from dyninfer.builds import OpenBuild
from dyninfer.bundle import Bundle
from dyninfer.engines.base import Backend, Engine
from dyninfer.errors import InputError, PolicyError
from dyninfer.manifest import Exit, Manifest
from dyninfer.policy import Policy

logger = logging.getLogger("dyninfer")


class CascadePipeline:
    """Runs the exits of a bundle on one backend.

    Any number of threads may call :meth:`run` at once; each borrows its own workspace.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend[Any, Any],
        build: OpenBuild | None = None,
        *,
        speculative_head: bool = False,
    ) -> None:
        self.manifest: Manifest = bundle.manifest
        self.backend = backend
        self.engines: dict[str, Engine[Any, Any]] = {}
        self.nan_easiness_count = 0
        self._stages = Stages(self.manifest, self.engines, backend, speculative_head)
        self._free_workspaces: list[Any] = []
        self._lent = 0
        self._closed = False
        self._lock = threading.Condition()
        try:
            for exit_ in self.manifest.exits:
                for name in exit_.stages:
                    stage = self.manifest.stages[name]
                    path = backend.stage_file(name, bundle.stage_path(name), build)
                    host_outputs = self._host_outputs(exit_, name)
                    self.engines[name] = backend.open(name, stage, path, host_outputs)
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
        policy.check_exits(len(self.manifest.exits))

    def check_open(self) -> None:
        """Raise InputError once the pipeline was closed."""
        if self._closed:
            raise InputError("the detector was closed; load the bundle again")

    @contextmanager
    def workspace(self) -> Iterator[Any]:
        """Borrow buffers that no other thread uses.

        They are kept for the next caller, but for those of a call that failed: what it left in
        them is not known.

        Raises:
            InputError: the pipeline was closed.
        """
        with self._lock:
            self.check_open()
            self._lent += 1
            workspace = self._free_workspaces.pop() if self._free_workspaces else None
        try:
            if workspace is None:
                workspace = self.backend.workspace()
            yield workspace
        except BaseException:
            if workspace is not None:
                workspace.close()
            workspace = None
            raise
        finally:
            with self._lock:
                self._lent -= 1
                if workspace is not None:
                    self._free_workspaces.append(workspace)
                self._lock.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is under way, or for ``timeout_s``; whether none is."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._lent, timeout_s)

    def run(self, feed: ImageFeed, batch: int, policy: Policy, workspace: Any) -> BatchResult:
        """Run a batch through as many exits as the policy asks for.

        Args:
            feed: gives prepared images; asked only for rows that reach a stage that reads them.
            batch: number of images N, at least 1.
            policy: splits the batch after every exit but the last.
            workspace: from :meth:`workspace`; the result is valid until it is used again.
        """
        result = BatchRun(self._stages, feed, batch, workspace).run(policy)
        if result.nan_rows:
            self._report_nan(len(result.nan_rows))
        return result

    def _report_nan(self, count: int) -> None:
        """Count images whose easiness is NaN; say so the first time."""
        with self._lock:
            first = not self.nan_easiness_count
            self.nan_easiness_count += count
        if first:
            logger.warning(
                "the router of %s returned NaN; such images are treated as hard "
                "(counted in nan_easiness_count, not reported again)",
                self.manifest.name,
            )

    def close(self) -> None:
        """Free all engines and buffers, once the calls that are under way have ended."""
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: not self._lent)
            free, self._free_workspaces = self._free_workspaces, []
        for workspace in free:
            workspace.close()
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()
        self.backend.close()
