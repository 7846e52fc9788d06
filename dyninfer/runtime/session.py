"""A bundle's engines, opened on one backend."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product
from typing import Any

import numpy as np

from dyninfer.builds.builder import stage_file
from dyninfer.builds.search import open_build
from dyninfer.builds.spec import VERSION_COMPATIBLE, OpenBuild
from dyninfer.bundle.folder import Bundle, StageChecks
from dyninfer.bundle.manifest import Manifest, TensorSpec
from dyninfer.engines.base import Backend, Engine, HostRead
from dyninfer.engines.device_array import DeviceArray
from dyninfer.errors import DyninferError
from dyninfer.forks import tell_after_fork
from dyninfer.hardware import usable_cores
from dyninfer.routing.policy import Blind, Forced, Later, Particular, Policy
from dyninfer.runtime.executor import execute, trace
from dyninfer.runtime.failures import FailureLog
from dyninfer.runtime.plan import decision_points, gathered, plan
from dyninfer.runtime.stage_runner import BatchResult, Signal, Trace
from dyninfer.runtime.workspaces import WorkspacePool
from dyninfer.spans import on_device
from dyninfer.types import AnyArray, Float32Array, Int64Array

logger = logging.getLogger("dyninfer")

DEFAULT_BATCH = 8
LONE_PARAMETERS = 16_000_000
"""The most of a bundle whose engines are opened twice. NanoDet at 224, 320 and 416 pixels gained a
quarter, a twelfth and a twelfth of the time on two cores: the more a stage has to do, the better a
single one uses them all."""
ImageFeed = Callable[[str, Int64Array, Any], "AnyArray | DeviceArray"]
"""(image input's name, rows of the batch, workspace) -> prepared (len(rows), 3, H, W).

An array on a GPU is given whole, for all rows of the batch; those that are asked for are gathered
there.
"""


class EngineRunner:
    """Stages of one call as engines on a device, in a workspace that nobody else uses meanwhile."""

    __slots__ = ("_backend", "_engines", "_feed", "_workspace")

    def __init__(
        self,
        engines: Mapping[str, Engine[Any, Any]],
        backend: Backend[Any, Any],
        feed: ImageFeed,
        workspace: Any,
    ) -> None:
        self._engines = engines
        self._backend = backend
        self._feed = feed
        self._workspace = workspace

    def feed(self, image_input: str, rows: Int64Array) -> Any:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        images = self._feed(image_input, rows, self._workspace)
        if isinstance(images, DeviceArray):
            return self._backend.from_device(image_input, images, self._workspace)
        return self._backend.from_host(images, self._workspace)

    def run(self, stage: str, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return self._engines[stage].run(tensors, self._workspace)

    def gather(self, place: str, tensors: Mapping[str, Any], rows: Int64Array) -> Mapping[str, Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return self._backend.gather_all(place, tensors, rows, self._workspace)

    def read(self, tensors: Mapping[str, Any], rows: Int64Array | None) -> Mapping[str, HostRead]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return self._backend.read(tensors, rows, self._workspace)

    def aside(self) -> AbstractContextManager[None]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return self._backend.aside(self._workspace)


class Session:
    """The engines of a bundle on one backend.

    Any number of threads may call :meth:`run` at once; each borrows its own workspace.
    ``workspace``, ``check_open``, ``wait_idle`` and ``close`` are those of
    :class:`dyninfer.runtime.workspaces.WorkspacePool`.

    Args:
        bundle: whose stages are opened.
        backend: that opens them; closed with the session, and where opening fails.
        build: whose files are opened in place of the bundle's own.
        speculative_head, degrade: see :func:`dyninfer.runtime.executor.execute`.
        checks: of the files' hashes, still under way; None where they were checked.
        max_batch: images that a call runs at once, for which memory is allowed.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend[Any, Any],
        build: OpenBuild | None = None,
        *,
        speculative_head: bool = False,
        degrade: bool = False,
        checks: StageChecks | None = None,
        max_batch: int = DEFAULT_BATCH,
    ) -> None:
        own = bundle.manifest
        self.manifest: Manifest = own if build is None else build.manifest(own)
        self.task = self.manifest.task.kind
        self.class_names = self.manifest.class_names
        self.image_specs = dict(self.manifest.image_inputs)
        self.image_types = {n: np.dtype(s.dtype) for n, s in self.manifest.image_tensors.items()}
        # of each way, the image input in whose pixels its boxes are
        self.way_specs = tuple(self.image_specs[way.image_input] for way in self.manifest.ways)
        self.backend = backend
        self.engines: dict[str, Engine[Any, Any]] = {}
        self.failures = FailureLog()
        self._bundle, self._build = bundle, build
        self._max_batch = max_batch
        self._pool = pool = WorkspacePool(backend, self.engines)
        self.workspace, self.check_open = pool.lend, pool.check_open
        self.wait_idle, self.close = pool.wait_idle, pool.close
        self._lock = threading.RLock()  # a signal's handler may predict, too
        self._lone: bool | None = None
        self.plan = plan(self.manifest)
        self.points = decision_points(self.plan)
        self._speculative_head = speculative_head
        self._degrade = degrade
        try:
            self._open_all(checks)
        except BaseException:
            self.close()
            raise
        tell_after_fork(self)

    @property
    def closed(self) -> bool:
        """Whether no call is taken any more."""
        return self._pool.closed

    def after_fork(self) -> None:
        """In a child process: leave the parent's engines alone, and open others for the first call.

        Their counters start from 0.
        """
        self._lock = threading.RLock()  # another thread may have held it
        self._lone = None
        self.failures.after_fork()
        self._pool.after_fork(self._reopen)

    def _reopen(self) -> None:
        """Open the engines of a forked child, unless another thread has.

        Raises:
            BackendUnavailable: the backend does not survive a fork; the message says what does.
        """
        with self._lock:
            if self._pool.reopen is None:
                return
            self.backend.after_fork()
            if self._build is not None:
                self._build = open_build(self._build.path, self._build.build)
            with StageChecks(self._bundle) as checks:
                self._open_all(checks)
                checks.wait_all()
            self._pool.reopen = None

    def _open_all(self, checks: StageChecks | None) -> None:
        options = {} if self._build is None else self._build.build.spec.options
        host_code = VERSION_COMPATIBLE in options
        with self.backend.opening(self.manifest, self._max_batch, host_code):
            for name in self.manifest.opening_order:
                self.engines[name] = self._open(name, checks)
            if self._max_batch > 1:
                self.backend.reserve(self._gathered())

    def _gathered(self) -> list[tuple[str, TensorSpec]]:
        """Where batches are split, and what of them moves then."""
        specs = dict(self.manifest.image_tensors)
        for stage in self.manifest.stages.values():
            specs |= {spec.name: spec for spec in stage.outputs}
        return [(place, specs[name]) for place, name in gathered(self.plan)]

    def _open(self, name: str, checks: StageChecks | None) -> Engine[Any, Any]:
        if checks is not None:
            checks.wait(name)
        path = stage_file(self._bundle, name, self._build)
        host_outputs = self._host_outputs(name)
        engine = self.backend.open(name, self.manifest.stages[name], path, host_outputs)
        self.engines[name] = engine  # so that it is closed if the next lines raise
        if self._build is not None:
            self._build.confirm(name)
        if checks is not None:
            checks.confirm(name)
        return engine

    def open_lone(self) -> bool:
        """Open the engines once more, for calls side by side that keep to a thread each.

        Whether they are there: not on a GPU or a single core, where nothing is gained, and not of
        large models, whose weights would be in memory twice and who gain little (see
        :data:`LONE_PARAMETERS`). Where their files cannot be opened any more, the log says why.
        """
        with self._lock:
            if self._lone is None:
                parameters = sum(self.manifest.stages[name].parameters for name in self.engines)
                self._lone = (
                    usable_cores() > 1 and parameters <= LONE_PARAMETERS and self._open_lone()
                )
            return self._lone

    def _open_lone(self) -> bool:
        options = {} if self._build is None else self._build.build.spec.options
        host_code = VERSION_COMPATIBLE in options
        build = self._build
        try:
            if build is not None:
                build = open_build(build.path, build.build)
            with (
                StageChecks(self._bundle) as checks,
                self.backend.opening(self.manifest, self._max_batch, host_code),
            ):
                for name, engine in self.engines.items():
                    checks.wait(name)
                    if not self.backend.open_lone(engine, stage_file(self._bundle, name, build)):
                        return False
                    if build is not None:
                        build.confirm(name)
                    checks.confirm(name)
        except DyninferError as error:
            logger.warning("%s: its frames run one after the other: %s", self.manifest.name, error)
            return False
        return True

    def _host_outputs(self, stage: str) -> frozenset[str]:
        """What decides, and the outputs in which ways end, are read by the host."""
        if stage in self.manifest.deciders:
            return frozenset(spec.name for spec in self.manifest.stages[stage].outputs)
        if stage in {way.final for way in self.manifest.ways}:
            return frozenset(self.manifest.task.outputs)
        return frozenset()

    def check_policy(self, policy: Policy, images: int | None = None) -> None:
        """Refuse a policy that this bundle, or a call of so many images, cannot follow.

        Raises:
            PolicyError: it reads what nothing computes, or does not fit the route.
        """
        if isinstance(policy, Particular):
            policy.check(self.points, images)

    def run(
        self, feed: ImageFeed, batch: int, policy: Policy, workspace: Any, first_image: int = 0
    ) -> BatchResult:
        """Run a batch, each image the way that the policy decides.

        Args:
            feed: gives prepared images; asked only for rows that reach a stage that reads them.
            batch: number of images N, at least 1.
            policy: splits the batch at every decision.
            workspace: from :meth:`workspace`; the result is valid until it is used again. Its
                ``deadline`` is that of the call.
            first_image: position of the first image among those of the call.
        """
        with self.backend.active():
            result = execute(
                self.plan,
                EngineRunner(self.engines, self.backend, feed, workspace),
                batch,
                policy,
                first_image=first_image,
                speculative_head=self._speculative_head,
                degrade=self._degrade,
                deadline=workspace.deadline,
            )
            result.spans = on_device(result.spans, workspace.device_spans())
        if isinstance(policy, Later):
            for signal in sorted(result.signals, key=lambda signal: signal.rows[0]):
                images = np.asarray(signal.rows, np.int64) + first_image
                policy.learn(signal.values, signal.point.of(images))
        elif isinstance(policy, Blind):
            return result
        self._report_nan(result.signals)
        return result

    def trace(
        self, feed: ImageFeed, batch: int, workspace: Any, keep: Collection[str] = frozenset()
    ) -> Trace:
        """Every way of every image, each stage run once; as :meth:`run` otherwise.

        ``keep`` names stages whose outputs are wanted as well.
        """
        workspace.timed = False
        runner = EngineRunner(self.engines, self.backend, feed, workspace)
        with self.backend.active():
            return trace(self.plan, runner, batch, keep)

    def warm_up(self, batches: Sequence[int]) -> None:
        """See :meth:`dyninfer.Detector.warm_up`."""
        tensors, rounds = self.manifest.image_tensors, self.backend.warm_rounds

        def empty(name: str, rows: Int64Array, _workspace: Any) -> Float32Array:
            shape = tensors[name].shape_for(len(rows))
            assert shape is not None  # an image input's axes are fixed
            return np.zeros(shape, tensors[name].dtype)

        ways = range(len(self.manifest.ways))
        with self.workspace() as workspace:
            workspace.timed, workspace.warming = False, True
            for batch in batches:
                for _ in range(rounds):
                    self.trace(empty, batch, workspace)
                if rounds == 1:  # parts of a batch need nothing of their own
                    continue
                for part, way in product(range(1, batch), ways[:-1] if len(ways) == 2 else ways):
                    other = (way + 1) % len(ways)
                    policy = Forced([way] * part + [other] * (batch - part))
                    for _ in range(rounds):
                        self.run(empty, batch, policy, workspace)

    def note_broken(self, fault: str) -> None:
        """Count an image whose outputs are broken, wholly or in part."""
        self.failures.count("broken_outputs", 1, f"{self.manifest.name}: {fault}")

    def _report_nan(self, signals: Sequence[Signal]) -> None:
        """Count images whose signal is NaN at a decision; say so the first time."""
        broken = [signal for signal in signals if _holds_nan(signal.values)]
        if not broken:
            return
        rows = {row for signal in broken for row in _nan_rows(signal)}
        maker = "router" if signals[0].values.ndim == 1 else "chooser"
        what = f"the {maker} of {self.manifest.name} returned NaN or a number outside 0 to 1"
        self.failures.count("broken_signals", len(rows), f"{what}; such images are treated as hard")


def _holds_nan(values: Float32Array) -> bool:
    if values.size == 1:  # the usual case, and NumPy would take longer than all else in here
        return math.isnan(values.item())
    return bool(np.isnan(values).any())


def _nan_rows(signal: Signal) -> list[int]:
    """Rows of the batch with a NaN at this decision."""
    broken = np.isnan(signal.values)
    lost = broken if broken.ndim == 1 else broken.any(axis=1)
    return [signal.rows[place] for place in np.flatnonzero(lost).tolist()]
