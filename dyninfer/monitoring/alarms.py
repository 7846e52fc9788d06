"""The latest images' easiness and routes, and the alarms where they are not as expected."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dyninfer.foreign_errors import let_through
from dyninfer.monitoring.drift import (
    bin_counts,
    ks_p_value,
    ks_statistic,
    on_grid,
    population_stability_index,
    share_noise,
    stability_noise,
)
from dyninfer.monitoring.expected import Outlook
from dyninfer.monitoring.report import Alarm, AlarmKind, MonitorSettings
from dyninfer.plain_text import plain
from dyninfer.types import Float64Array

logger = logging.getLogger("dyninfer.monitor")

LOOKS_PER_WINDOW = 10
"""How often the statistics are computed while a window passes."""
FALSE_ALARMS_PER_WINDOW = 0.01
"""Chance of a false alarm of each kind while a window of unchanged images passes, at most."""
LEVEL = FALSE_ALARMS_PER_WINDOW / LOOKS_PER_WINDOW
RECOVERED = 0.75
"""An alarm ends when its value is down at this part of its limit, so that it does not flicker."""
_ADVICE = "calibrate again on present images"


@dataclass(frozen=True)
class LimitCheck:
    """One look at one value: whether it is beyond its limit, and whether it is well within it."""

    kind: AlarmKind
    message: str
    value: float
    limit: float
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

    def update(self, checks: Iterable[LimitCheck], images: int) -> list[Alarm]:
        """Take new looks in after a number of images; the new alarms, for :func:`deliver`."""
        new = []
        for check in checks:
            kind = check.kind
            if check.exceeded and kind not in self._active:
                alarm = Alarm(kind, check.message, check.value, check.limit, images)
                self._active[kind] = alarm
                self.raised += 1
                new.append(alarm)
            elif check.recovered and kind in self._active:
                del self._active[kind]
                logger.info("%s has recovered: %.4g", kind, check.value)
        return new


def deliver(alarms: Iterable[Alarm], on_alarm: Callable[[Alarm], object] | None) -> None:
    """Log alarms and hand them to the application; what its callback raises is logged only."""
    for alarm in alarms:
        logger.warning("%s", plain(alarm.message))
        if on_alarm is None:
            continue
        try:
            on_alarm(alarm)
        except Exception as error:
            let_through(error)
            logger.exception("on_alarm failed for the alarm %s; prediction goes on", alarm.kind)


class EasinessWindow:
    """The latest images. Not safe for threads: its owner holds a lock."""

    def __init__(self, size: int) -> None:
        self._images: deque[tuple[float | None, bool | None, float | None]] = deque(maxlen=size)
        self.clear = self._images.clear

    def __len__(self) -> int:
        return len(self._images)

    @property
    def full(self) -> bool:
        """Whether the next image replaces another."""
        return len(self) == self._images.maxlen

    def add(self, easiness: float | None, hard: bool | None, expected: float | None) -> None:
        """Take an image in: its easiness, whether it was hard, and the hard share expected then.

        ``hard`` is None where the policy did not decide that.
        """
        self._images.append((easiness, hard, expected))

    @property
    def easiness(self) -> Float64Array:
        """(n,) easiness of the images, the oldest first, NaN included."""
        return self._column(0)

    @property
    def hard_share(self) -> float | None:
        """Share of the images that reached the last exit, of those whose policy decided."""
        hard = self._column(1)
        return _mean(hard[~np.isnan(hard)])

    @property
    def expected_hard_share(self) -> float | None:
        """What the policies were expected to send on, of the images of :attr:`hard_share`.

        None where that is unknown of one of them: the two would be of different images.
        """
        return _mean(self._column(2)[~np.isnan(self._column(1))])

    def _column(self, index: int) -> Float64Array:
        return np.array([image[index] for image in self._images], np.float64)


def _mean(values: Float64Array) -> float | None:
    """The mean; None where there is none, or one is unknown."""
    return None if not len(values) or np.isnan(values).any() else float(values.mean())


@dataclass(frozen=True)
class DriftReading:
    """Distance of the window's easiness from the expected one."""

    histogram: tuple[float, ...]
    psi: float
    psi_limit: float
    ks_statistic: float
    ks_p_value: float


def read_drift(
    window: EasinessWindow, outlook: Outlook | None, psi_alarm: float | None = None
) -> DriftReading | None:
    """Compare distributions; None where one of them is empty.

    The limit of the stability index is ``psi_alarm``, or what chance alone gives where that is
    more.
    """
    easiness = on_grid(window.easiness[~np.isnan(window.easiness)])
    if outlook is None or not len(easiness) or not len(outlook.easiness):
        return None
    n, m = len(easiness), len(outlook.easiness)
    counts = bin_counts(easiness, outlook.edges)
    statistic = ks_statistic(easiness, outlook.easiness)
    return DriftReading(
        histogram=tuple((counts / n).tolist()),
        psi=population_stability_index(counts, outlook.counts),
        psi_limit=max(stability_noise(len(counts), n, m, LEVEL), psi_alarm or 0.0),
        ks_statistic=statistic,
        ks_p_value=ks_p_value(statistic, n, m),
    )


def drift_checks(
    window: EasinessWindow, outlook: Outlook, settings: MonitorSettings
) -> list[LimitCheck]:
    """One look at everything that is known of easiness.

    There are ten looks while a window passes, so each is allowed a tenth of the false alarms
    (Bonferroni): ``ks_alarm / 10`` for the test of Kolmogorov and Smirnov, 0.001 for the others,
    whose limits are raised to where chance alone would exceed them less often than that.
    """
    count = len(window)
    checks = [_nan_check(window, outlook)] if count else []
    if count < settings.min_images:
        return checks
    reading = read_drift(window, outlook, settings.psi_alarm)
    if reading and settings.psi_alarm is not None:
        checks.append(_psi_check(reading, count))
    if reading and settings.ks_alarm is not None:
        checks.append(_ks_check(reading, settings.ks_alarm, count))
    share, expected = window.hard_share, window.expected_hard_share
    if settings.hard_share_alarm is not None and share is not None and expected is not None:
        noise = share_noise(expected, count, outlook.images, LEVEL)
        limit = max(settings.hard_share_alarm, noise)
        checks.append(_hard_check(share, expected, limit, count))
    return checks


def _nan_check(window: EasinessWindow, outlook: Outlook) -> LimitCheck:
    count = int(np.isnan(window.easiness).sum())
    share, expected = count / len(window), outlook.nan_share
    limit = expected + share_noise(expected, len(window), outlook.images, LEVEL)
    message = (
        f"the router returned NaN for {count} of the last {len(window)} images, expected a share "
        f"of {expected:.4f}; such images count as hard: check the camera and the preprocessing"
    )
    return LimitCheck("nan", message, share, limit, share > limit, share <= limit)


def _psi_check(reading: DriftReading, window: int) -> LimitCheck:
    psi, limit = reading.psi, reading.psi_limit
    message = (
        f"easiness has drifted: population stability index {psi:.3f} over the last "
        f"{window} images, limit {limit:.3f}; {_ADVICE}"
    )
    return LimitCheck("psi", message, psi, limit, psi > limit, psi <= RECOVERED * limit)


def _ks_check(reading: DriftReading, level: float, window: int) -> LimitCheck:
    limit, p_value = level / LOOKS_PER_WINDOW, reading.ks_p_value
    message = (
        f"easiness has drifted: Kolmogorov-Smirnov statistic {reading.ks_statistic:.3f} over the "
        f"last {window} images has p = {p_value:.2g}, limit {limit:.2g}; {_ADVICE}"
    )
    return LimitCheck("ks", message, p_value, limit, p_value < limit, p_value >= level)


def _hard_check(share: float, expected: float, limit: float, window: int) -> LimitCheck:
    message = (
        f"{share:.1%} of the last {window} images reached the last exit, expected "
        f"{expected:.1%} within {limit:.1%}; {_ADVICE}"
    )
    far = abs(share - expected)
    return LimitCheck("hard_share", message, far, limit, far > limit, far <= RECOVERED * limit)
