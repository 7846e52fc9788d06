"""What went wrong in a detector's calls: counted, and each kind logged once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from dyninfer.errors import BrokenOutputError, DeadlineError, EngineRunError
from dyninfer.plain_text import plain
from dyninfer.runtime.stage_runner import Failure

logger = logging.getLogger("dyninfer")


@dataclass(frozen=True)
class FailureCounts:
    """How many images met what since the detector was opened.

    What ends a call counts as well, or a metric would not show that nothing is answered: of a
    failed stage or a deadline then all images of the batch, none of which has an answer.

    Attributes:
        broken_signals: an easiness that was no number from 0 to 1, or a NaN of a chooser; such
            images are treated as hard.
        broken_outputs: boxes, scores or logits that no working engine gives.
        failed_stages: a stage failed.
        deadlines: the deadline passed.
        degraded: answered by an earlier exit than the policy asked for, or, where nobody waited
            for their easiness, without it.
    """

    broken_signals: int = 0
    broken_outputs: int = 0
    failed_stages: int = 0
    deadlines: int = 0
    degraded: int = 0

    def to_dict(self) -> dict[str, int]:
        """Name -> count, for a metrics endpoint."""
        return asdict(self)


class FailureLog:
    """Counts failures for any number of threads; each kind is logged the first time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may predict, too
        self.counts = FailureCounts()

    def after_fork(self) -> None:
        """In a child process: another thread may have held the lock."""
        self._lock = threading.RLock()

    def count(self, kind: str, images: int, what: str) -> None:
        """Count images under a field of :class:`FailureCounts`, ``what`` being what happened."""
        with self._lock:
            before = getattr(self.counts, kind)
            self.counts = replace(self.counts, **{kind: before + images})
        if not before:
            logger.warning(
                "%s (counted in failure_counts.%s, not reported again)", plain(what), kind
            )

    def failed(self, error: EngineRunError, images: int) -> None:
        """Count images that met an error; broken outputs were counted where they were found."""
        if not isinstance(error, BrokenOutputError):
            late = isinstance(error, DeadlineError)
            self.count("deadlines" if late else "failed_stages", images, str(error))

    def degraded(self, failures: Sequence[Failure]) -> Collection[int]:
        """Count what made images leave early; returns their rows."""
        for failure in failures:
            self.failed(failure.error, len(failure.rows))
        rows = {row for failure in failures for row in failure.rows}
        if rows:
            self.count("degraded", len(rows), "images are answered by an earlier exit")
        return rows
