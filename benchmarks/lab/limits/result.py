"""One speed limit and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dyninfer.evaluation.interleaved import RatioEstimate


@dataclass(frozen=True)
class LimitResult:
    """A figure that the project wants to stay below.

    Attributes:
        key: short name of the row, for example ``preprocessing``.
        what: what is compared with what, in words.
        unit: of ``limit`` and ``measured``: ``ratio`` or ``microseconds``.
        limit: the figure is to be at most this.
        measured: median over rounds with its 95 % interval.
        times_ms: every time by contender, in the order of the rounds.
        note: how it was measured; where the limit is missed, why.
    """

    key: str
    what: str
    unit: str
    limit: float
    measured: RatioEstimate
    times_ms: Mapping[str, Sequence[float]]
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the median is within the limit."""
        return self.measured.median <= self.limit
