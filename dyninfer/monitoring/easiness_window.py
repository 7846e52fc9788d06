"""The latest images' easiness and routes, beside what was expected of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dyninfer.monitoring.alarms import RECOVERED, Alarm, LimitCheck
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
from dyninfer.monitoring.report import MonitorSettings
from dyninfer.types import Float64Array

LOOKS_PER_WINDOW = 10
"""How often the statistics are computed while a window passes."""
FALSE_ALARMS_PER_WINDOW = 0.01
"""Chance of a false alarm of each kind while a window of unchanged images passes, at most."""
LEVEL = FALSE_ALARMS_PER_WINDOW / LOOKS_PER_WINDOW
_ADVICE = "calibrate again on present images"


class EasinessWindow:
    """The latest images. Not safe for threads: its owner holds a lock."""

    def __init__(self, size: int) -> None:
        self._images: deque[tuple[float, float, float]] = deque(maxlen=size)
        self.clear = self._images.clear

    def __len__(self) -> int:
        return len(self._images)

    @property
    def full(self) -> bool:
        """Whether the next image replaces another."""
        return len(self) == self._images.maxlen

    def add(self, easiness: float, hard: float, expected: float) -> None:
        """Take an image in, NaN for what does not count.

        Args:
            easiness: what the router said.
            hard: 1 where it reached the last exit, else 0; NaN if the policy did not decide.
            expected: the hard share that the policy was expected to have.
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
    window: EasinessWindow, outlook: Outlook, settings: MonitorSettings, images: int
) -> list[LimitCheck]:
    """One look at everything that is known of easiness; ``images`` were seen so far.

    There are ten looks while a window passes, so each is allowed a tenth of the false alarms
    (Bonferroni): ``ks_alarm / 10`` for the test of Kolmogorov and Smirnov, 0.001 for the others,
    whose limits are raised to where chance alone would exceed them less often than that.
    """
    checks = list(_nan_check(window, outlook, images))
    if len(window) < settings.min_images:
        return checks
    reading = read_drift(window, outlook, settings.psi_alarm)
    if reading and settings.psi_alarm is not None:
        checks.append(_psi_check(reading, len(window), images))
    if reading and settings.ks_alarm is not None:
        checks.append(_ks_check(reading, settings.ks_alarm, len(window), images))
    if settings.hard_share_alarm is not None:
        checks += _hard_check(window, outlook, settings.hard_share_alarm, images)
    return checks


def _nan_check(window: EasinessWindow, outlook: Outlook, images: int) -> Iterator[LimitCheck]:
    if not len(window):
        return
    count = int(np.isnan(window.easiness).sum())
    share, expected = count / len(window), outlook.nan_share
    limit = expected + share_noise(expected, len(window), outlook.images, LEVEL)
    message = (
        f"the router returned NaN for {count} of the last {len(window)} images, expected a share "
        f"of {expected:.4f}; such images count as hard: look at the camera and the preprocessing"
    )
    yield LimitCheck(Alarm("nan", message, share, limit, images), share > limit, share <= limit)


def _psi_check(reading: DriftReading, window: int, images: int) -> LimitCheck:
    limit = reading.psi_limit
    message = (
        f"easiness has drifted: population stability index {reading.psi:.3f} over the last "
        f"{window} images, limit {limit:.3f}; {_ADVICE}"
    )
    alarm = Alarm("psi", message, reading.psi, limit, images)
    return LimitCheck(alarm, reading.psi > limit, reading.psi <= RECOVERED * limit)


def _ks_check(reading: DriftReading, level: float, window: int, images: int) -> LimitCheck:
    limit, p_value = level / LOOKS_PER_WINDOW, reading.ks_p_value
    message = (
        f"easiness has drifted: Kolmogorov-Smirnov statistic {reading.ks_statistic:.3f} over the "
        f"last {window} images has p = {p_value:.2g}, limit {limit:.2g}; {_ADVICE}"
    )
    return LimitCheck(
        Alarm("ks", message, p_value, limit, images), p_value < limit, p_value >= level
    )


def _hard_check(
    window: EasinessWindow, outlook: Outlook, tolerance: float, images: int
) -> Iterator[LimitCheck]:
    share, expected = window.hard_share, window.expected_hard_share
    if share is None or expected is None:
        return
    noise = share_noise(expected, len(window), outlook.images, LEVEL)
    limit, distance = max(tolerance, noise), abs(share - expected)
    message = (
        f"{share:.1%} of the last {len(window)} images reached the last exit, expected "
        f"{expected:.1%} within {limit:.1%}; {_ADVICE}"
    )
    alarm = Alarm("hard_share", message, distance, limit, images)
    yield LimitCheck(alarm, distance > limit, distance <= RECOVERED * limit)
