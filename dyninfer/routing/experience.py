"""What one stream's own answers have shown: how good each exit is there, and how soon they age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRIOR_AUDITS = 1.0
"""Frames that were compared which what is believed beforehand counts as much as."""
AUDIT_SHARE = 0.02
"""Of a stream's work that goes into comparing its exits, beside once on its first frame."""
_KEPT = 0.9  # of what earlier audits say, with each new one of that exit
_CHANGE = 0.2  # loss a second by which an answer ages, until the stream itself tells
_NEWS = 0.4  # share of its latest in how quickly answers age


class Experience:
    """Of one stream, on a route of so many ways, of which the last is the best.

    Attributes:
        change: loss a second by which an answer ages.
        easiness: that the router gave the latest frame.
    """

    def __init__(self, ways: int) -> None:
        self.change = _CHANGE
        self.easiness = 0.5
        self._audits, self._sums = np.zeros(ways), np.zeros(ways)
        self._saved_ms: float | None = None  # None until its first audit

    def lost(self, prior: Sequence[float]) -> list[float]:
        """(ways,) expected loss of an answer, where that much is believed beforehand."""
        believed = PRIOR_AUDITS * np.asarray(prior)
        losses = (believed + self._sums) / (PRIOR_AUDITS + self._audits)
        return [float(loss) for loss in losses]

    def next_audit(self, ms: Sequence[float], chosen: int) -> int | None:
        """The exit that is compared with the last one on this frame, if any is; it is paid for.

        ``ms`` (ways,) are the prices of answers; the one on the way ``chosen`` is bought anyway.
        """
        if len(ms) < 2:
            return None
        way = int(np.argmin(self._audits[:-1]))
        more = ms[way] + ms[-1] - ms[chosen]
        if self._saved_ms is not None and self._saved_ms < more:
            return None
        self._saved_ms = 0.0 if self._saved_ms is None else self._saved_ms - more
        return way

    def note_work(self, ms: float) -> None:
        """An answer was paid for."""
        if self._saved_ms is not None:
            self._saved_ms += AUDIT_SHARE * ms

    def note_audit(self, way: int, loss: float) -> None:
        """On one frame an earlier exit lost this much against the last one."""
        self._audits[way] = _KEPT * self._audits[way] + 1
        self._sums[way] = _KEPT * self._sums[way] + loss

    def note_change(self, loss: float, seconds: float) -> None:
        """An answer of the last exit lost this much against one so much later."""
        self.change = max(0.0, self.change + _NEWS * (loss / seconds - self.change))
