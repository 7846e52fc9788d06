"""Shadow audits: what the last exit would have found in images that left earlier."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dyninfer.monitoring.drift import mean_bounds
from dyninfer.monitoring.expected import Outlook
from dyninfer.monitoring.report import AuditReport
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options, TaskKind
from dyninfer.routing.policy import DecisionPoint
from dyninfer.types import ImageArray

logger = logging.getLogger("dyninfer.monitor")

QUEUE = 8
"""Images that wait at most; each is a copy of a picture in its own size."""
PATIENCE_S = 2.0
"""How long an audit waits for a moment when no other call is under way before it runs anyway."""
_SLICE_S = 0.1
_AT_EXIT_S = 10.0


@dataclass(frozen=True)
class Watched:
    """What a monitor needs of a detector whose answers it watches: its engines, not itself.

    Attributes:
        name: of the bundle.
        task: what it computes.
        points: where its route decides.
        check_open: raises InputError once it was closed.
        wait_idle: waits until no call is under way, up to a number of seconds; whether none is.
        last_answer: what the last way finds in a picture (h, w, 3) uint8 BGR, whatever the policy.
    """

    name: str
    task: TaskKind
    points: Sequence[DecisionPoint]
    check_open: Callable[[], None]
    wait_idle: Callable[[float], bool]
    last_answer: Callable[[ImageArray, Options], Answer]


@dataclass(frozen=True, eq=False)
class AuditJob:
    """An image that left before the last exit, and what was answered.

    ``easy_share`` in (0, 1] is the share of such images at the time, this one among them;
    ``outlook`` is what was expected then.
    """

    image: ImageArray
    found: Answer
    options: Options
    easy_share: float
    outlook: Outlook | None


@dataclass(frozen=True)
class AuditRecord:
    """The loss in [0, 1] of one answer against the last exit's, see :func:`disagreement`."""

    loss: float
    easy_share: float
    outlook: Outlook | None


def summarise(
    records: Iterable[AuditRecord], level: float, limit: float | None = None
) -> AuditReport | None:
    """Mean and bounds of audits; None where there are none.

    Every image that leaves early has the same chance to be audited, so the mean loss of audits is
    that of such images, and the risk is that mean times the share of them among all images. Times
    at which more images leave early have more audits: the share over the whole time is therefore
    the harmonic, not the arithmetic mean of the shares that the audits met.

    Each bound is wrong with a chance of at most ``level``, see
    :func:`dyninfer.monitoring.drift.mean_bounds`. ``limit`` is of the risk; None for what the
    reference says.
    """
    audits = list(records)
    if not audits:
        return None
    mean = float(np.mean([audit.loss for audit in audits]))
    easy_share = 1 / float(np.mean([1 / audit.easy_share for audit in audits]))
    low, high = mean_bounds(mean, len(audits), level)
    outlooks = [audit.outlook for audit in audits]
    if limit is None:
        limit = _mean([outlook.risk_limit if outlook else None for outlook in outlooks])
    return AuditReport(
        disagreement=mean,
        disagreement_interval=(low, high),
        expected_disagreement=_mean(
            [outlook.easy_loss if outlook else None for outlook in outlooks]
        ),
        risk=mean * easy_share,
        risk_interval=(low * easy_share, high * easy_share),
        risk_limit=limit,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, or None where a value is unknown."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


class Auditor:
    """One thread that asks for the last way's answer to images that it is offered.

    The thread refers to what it is given here, never to the detector, so that a detector that is
    dropped without being closed is still freed; its owner then calls :meth:`signal_stop`. Every
    record goes to ``on_audited``, in the thread.
    """

    def __init__(
        self,
        watched: Watched,
        on_audited: Callable[[AuditRecord], None],
        capacity: int = QUEUE,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.done = 0
        self.dropped = 0
        self.failed = 0
        self._watched = watched
        self._on_audited = on_audited
        self._capacity = capacity
        self._patience_s = patience_s
        self._waiting: deque[AuditJob] = deque()
        self._running = False
        self._stopped = False
        # taken by itself: a Condition's own method of entering could be interrupted half-way
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, name="dyninfer-audit", daemon=True)

    @property
    def pending(self) -> int:
        """Images that wait or are being audited."""
        return len(self._waiting) + self._running

    def start(self) -> None:
        """Start the thread."""
        # a daemon that is inside an engine while the interpreter ends may crash it
        atexit.register(self.stop, _AT_EXIT_S)
        self._thread.start()

    def offer(self, job: AuditJob) -> bool:
        """Queue an image and return at once; False where it was dropped.

        The picture is copied: the caller may overwrite it.
        """
        with self._lock:
            if self._stopped or len(self._waiting) >= self._capacity:
                self.dropped += 1
                return False
            self._waiting.append(replace(job, image=job.image.copy()))
            self._changed.notify_all()
            return True

    def finish(self, timeout_s: float | None) -> bool:
        """Wait until nothing is pending; False where that took longer than ``timeout_s``."""
        with self._lock:
            return self._changed.wait_for(lambda: not self.pending, timeout_s)

    def signal_stop(self) -> None:
        """Let the thread end after the audit under way; what waits is dropped."""
        with self._lock:
            self._stopped = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()

    def stop(self, timeout_s: float | None = None) -> None:
        """:meth:`signal_stop`, and wait for the thread, unless it is the one that calls."""
        self.signal_stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def forget(self) -> None:
        """In a child process, where there is no such thread: do not wait for it at the end."""
        atexit.unregister(self.stop)

    def _work(self) -> None:
        try:
            while job := self._next():
                self._wait_for_idle()
                if not self._stopped:
                    self._audit(job)
                with self._lock:
                    self._running = False
                    self._changed.notify_all()
        finally:
            atexit.unregister(self.stop)

    def _next(self) -> AuditJob | None:
        with self._lock:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped:
                return None
            self._running = True
            return self._waiting.popleft()

    def _wait_for_idle(self) -> None:
        """Let other calls go first, for as long as the patience lasts."""
        for _ in range(max(1, round(self._patience_s / _SLICE_S))):
            if self._stopped or self._watched.wait_idle(_SLICE_S):
                return

    def _audit(self, job: AuditJob) -> None:
        try:
            reference = self._watched.last_answer(job.image, job.options)
            loss = self._watched.task.loss(job.found, reference)
            self.done += 1
            self._on_audited(AuditRecord(loss, job.easy_share, job.outlook))
        except Exception:
            self.failed += 1
            if self.failed == 1:
                logger.exception("an audit failed; prediction goes on, more are only counted")
