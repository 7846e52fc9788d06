"""The cascade: cheap stages first, and the next exit only for the rows that need it."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from typing import Any

from dyninfer.builds.choice import stage_file
from dyninfer.builds.spec import OpenBuild
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Exit, Manifest
from dyninfer.bundle.stage_checks import StageChecks
from dyninfer.engines.base import Backend, Engine
from dyninfer.errors import InputError, PolicyError
from dyninfer.images.spec import ImageSpec
from dyninfer.routing.policy import Policy
from dyninfer.runtime.executor import BatchResult, BatchRun, ImageFeed, Stages
from dyninfer.runtime.plan import plan_route

logger = logging.getLogger("dyninfer")


class CascadePipeline:
    """Runs the exits of a bundle on one backend.

    Any number of threads may call :meth:`run` at once; each borrows its own workspace.

    Args:
        bundle: whose stages are opened.
        backend: that opens them; closed with the pipeline, and where opening fails.
        build: whose files are opened in place of the bundle's own.
        speculative_head: see :class:`dyninfer.runtime.executor.Stages`.
        checks: of the files' hashes, still under way; None where they were checked.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend[Any, Any],
        build: OpenBuild | None = None,
        *,
        speculative_head: bool = False,
        checks: StageChecks | None = None,
    ) -> None:
        self.manifest: Manifest = bundle.manifest
        self.class_names = self.manifest.class_names
        self.image_specs = dict(self.manifest.image_inputs)
        self.backend = backend
        self.engines: dict[str, Engine[Any, Any]] = {}
        self.nan_easiness_count = 0
        self._free_workspaces: list[Any] = []
        self._lent = 0
        self._closed = False
        self._lock = threading.Condition()
        try:
            for exit_ in self.manifest.exits:
                for name in exit_.stages:
                    self.engines[name] = self._open(bundle, exit_, name, build, checks)
        except BaseException:
            self.close()
            raise
        exits = plan_route(self.manifest, self.engines)
        self._stages = Stages(exits, backend, self.manifest.task.outputs, speculative_head)

    def _open(
        self,
        bundle: Bundle,
        exit_: Exit,
        name: str,
        build: OpenBuild | None,
        checks: StageChecks | None,
    ) -> Engine[Any, Any]:
        if checks is not None:
            checks.wait(name)
        path = stage_file(bundle, name, build)
        host_outputs = self._host_outputs(exit_, name)
        engine = self.backend.open(name, self.manifest.stages[name], path, host_outputs)
        if checks is not None:
            self.engines[name] = engine  # so that it is closed if the next line raises
            checks.confirm(name)
        return engine

    def _host_outputs(self, exit_: Exit, stage: str) -> frozenset[str]:
        """The router's easiness and an exit's final outputs are read by the host."""
        if stage == exit_.router:
            return frozenset(spec.name for spec in self.manifest.stages[stage].outputs)
        if stage == (exit_.head or exit_.body):
            return frozenset(self.manifest.task.outputs)
        return frozenset()

    def image_spec(self, exit_index: int) -> ImageSpec:
        """Of the image input in whose pixels an exit's boxes are."""
        return self.image_specs[self._stages.exits[exit_index].image_input]

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

    def workspace(self) -> AbstractContextManager[Any]:
        """Borrow buffers that no other thread uses.

        They are kept for the next caller, but for those of a call that failed: what it left in
        them is not known.

        Raises:
            InputError: on entering, where the pipeline was closed.
        """
        return _Lending(self)

    def _borrow(self) -> Any:
        with self._lock:
            self.check_open()
            self._lent += 1
            if self._free_workspaces:
                return self._free_workspaces.pop()
        try:
            return self.backend.workspace()
        except BaseException:
            self._take_back(None)
            raise

    def _take_back(self, workspace: Any | None) -> None:
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


class _Lending(AbstractContextManager[Any]):
    """A workspace on loan; a class, because a generator would take longer than the loan."""

    __slots__ = ("_pipeline", "_workspace")

    def __init__(self, pipeline: CascadePipeline) -> None:
        self._pipeline = pipeline
        self._workspace: Any = None

    def __enter__(self) -> Any:
        self._workspace = self._pipeline._borrow()
        return self._workspace

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        workspace = self._workspace
        if kind is not None:
            try:
                workspace.close()
            finally:
                self._pipeline._take_back(None)
        else:
            self._pipeline._take_back(workspace)
