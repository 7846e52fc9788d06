"""Alarms that are raised once when a limit is crossed, and again only after it had recovered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger("dyninfer.monitor")

AlarmKind = Literal["psi", "ks", "hard_share", "nan", "disagreement"]
RECOVERED = 0.75
"""An alarm ends when its value is down at this part of its limit, so that it does not flicker."""


@dataclass(frozen=True)
class Alarm:
    """Something that no longer is as the threshold's choice presumed.

    Attributes:
        kind: ``psi`` and ``ks``: the distribution of easiness; ``hard_share``: the share of images
            that reach the last exit; ``nan``: routers that return NaN; ``disagreement``: the risk
            that audits measure.
        message: what was found, what was expected, what to do, in one line.
        value: what was measured.
        limit: what it should not have crossed.
        images: how many images the monitor had seen by then.
    """

    kind: AlarmKind
    message: str
    value: float
    limit: float
    images: int


@dataclass(frozen=True)
class LimitCheck:
    """One look at one value: whether it is beyond its limit, and whether it is well within it."""

    alarm: Alarm
    exceeded: bool
    recovered: bool


class AlarmBoard:
    """The alarms that stand. Not safe for threads: its owner holds a lock."""

    def __init__(self) -> None:
        self._active: dict[AlarmKind, Alarm] = {}
        self.raised = 0

    @property
    def active(self) -> tuple[Alarm, ...]:
        """Alarms that have not recovered, as they were when raised, the oldest first."""
        return tuple(self._active.values())

    def update(self, checks: Iterable[LimitCheck]) -> list[Alarm]:
        """Take new looks in; returns the alarms that are new, for :func:`deliver`."""
        new = []
        for check in checks:
            kind = check.alarm.kind
            if check.exceeded and kind not in self._active:
                self._active[kind] = check.alarm
                self.raised += 1
                new.append(check.alarm)
            elif check.recovered and kind in self._active:
                del self._active[kind]
                logger.info("%s has recovered: %.4g", kind, check.alarm.value)
        return new


def deliver(alarms: Iterable[Alarm], on_alarm: Callable[[Alarm], object] | None) -> None:
    """Log alarms and hand them to the application; what its callback raises is logged only."""
    for alarm in alarms:
        logger.warning("%s", alarm.message)
        if on_alarm is None:
            continue
        try:
            on_alarm(alarm)
        except Exception:
            logger.exception("on_alarm failed for the alarm %s; prediction goes on", alarm.kind)
