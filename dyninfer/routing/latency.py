"""Goals in milliseconds and in images per second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from dyninfer.bundle.calibration import Calibration, Certificate
from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS
from dyninfer.errors import PolicyError
from dyninfer.routing.control import start_controller
from dyninfer.routing.control_law import Cost
from dyninfer.routing.goals import check_flag, check_number, check_on_impossible, ending_of
from dyninfer.routing.policy import Policy, Threshold
from dyninfer.routing.settings import ROUNDING, cannot_be_kept, nearest_or_raise, settings_of
from dyninfer.routing.thresholds import exit_shares_at, mean_ms, percentile_ms
from dyninfer.types import Float64Array

TAIL_MARGIN = 0.05
"""Share of its late images that an adaptive tail budget keeps in reserve, for its own swing."""


@dataclass(frozen=True)
class LatencyBudget:
    """As many images hard as fit into ``ms`` milliseconds per image.

    Of a chooser: its own choice where that fits, else with the cost bias that just does.

    The mean stays within ``ms``; with ``percentile`` q, that percentile of the images' times
    does, so that at most 100 - q % of the images take longer. With ``adaptive`` both are held on
    the stream by what images really took, within the certified range where there is one.

    A budget below what the fastest setting takes is refused; with ``on_impossible="nearest"`` that
    setting answers, and the log ``dyninfer`` says so.
    """

    needs_times: ClassVar[bool] = True
    signals: ClassVar[tuple[str, ...]] = (EASINESS, CHOICE_SCORES)
    ms: float
    percentile: float | None = None
    adaptive: bool = False
    on_impossible: Literal["raise", "nearest"] = "raise"

    def __post_init__(self) -> None:
        check_number("a latency budget", self.ms, 0, math.inf, "12.0 milliseconds", above=True)
        if self.percentile is not None:
            check_number("a percentile", self.percentile, 0, 100, "95", above=True)
        if self.percentile == 100:
            raise PolicyError("a percentile is 100, expected less: no budget holds for all images")
        check_flag(self.adaptive)
        check_on_impossible(self.on_impossible)

    def __str__(self) -> str:
        ending = ending_of(self.adaptive)
        if self.percentile is None:
            return f"{self.ms:g} ms on average{ending}"
        return f"{self.percentile:g}% of images within {self.ms:g} ms{ending}"

    def resolve(self, calibration: Calibration, title: str | None = None) -> Policy:
        """See :class:`dyninfer.routing.goals.Goal`; refused where the fastest setting is too slow.

        ``title`` is what the user asked for, where that was in other words.
        """
        title = title or str(self)
        found = settings_of(calibration)
        costs = self._way_costs(calibration.exit_ms)
        dearest = found.dearest_within(costs, self._limit())
        if dearest is None:
            first, last = (self._predicted(calibration, found.shares[end]) for end in (0, -1))
            reason = cannot_be_kept(title, found, f"{first:.2f} ms", f"{last:.2f} ms")
            cheapest = found.policy(int((found.shares @ costs).argmin()))
            return nearest_or_raise(self.on_impossible, cheapest, reason)
        return self._controller(calibration, costs, title) if self.adaptive else dearest

    def _controller(self, calibration: Calibration, costs: Float64Array, title: str) -> Policy:
        """What holds the budget on the stream, within the certified range where there is one."""
        certificate, easiness = calibration.certificate, calibration.easiness_array
        limit = self._limit() + ROUNDING
        if certificate and exit_shares_at(easiness, certificate.threshold) @ costs > limit:
            reason = self._uncertified(calibration, certificate, title)
            return nearest_or_raise(self.on_impossible, Threshold(certificate.threshold), reason)
        ends = (float(costs[0]), float(costs[-1]))
        if self.percentile is None:
            return start_controller(calibration, Cost.MS, self.ms, ends, title)
        late = (1 - TAIL_MARGIN) * self._limit()
        return start_controller(calibration, Cost.LATE, late, ends, title, limit_ms=self.ms)

    def _limit(self) -> float:
        """Of the mean of :meth:`_way_costs`: milliseconds, or the share that may be late."""
        return self.ms if self.percentile is None else 1 - self.percentile / 100

    def _way_costs(self, exit_ms: Sequence[Sequence[float]]) -> Float64Array:
        """(ways,) mean milliseconds, or for a tail budget the share of images that is late.

        The q-th percentile of a mixture is within ``ms`` exactly if at most 100 - q % is late.
        """
        samples = [np.array(times) for times in exit_ms]
        if self.percentile is None:
            return np.array([times.mean() for times in samples])
        return np.array([(times > self.ms).mean() for times in samples])

    def _predicted(self, calibration: Calibration, shares: Float64Array) -> float:
        """The milliseconds that the budget is about, where ways have these shares."""
        if self.percentile is None:
            return mean_ms(shares, calibration.exit_ms)
        return percentile_ms(shares, calibration.exit_ms, self.percentile)

    def _uncertified(self, calibration: Calibration, certificate: Certificate, title: str) -> str:
        shares = exit_shares_at(calibration.easiness_array, certificate.threshold)
        return (
            f"{title} cannot be kept: the certified threshold {certificate.threshold:.4g} sends "
            f"{certificate.hard_fraction:.1%} of the images on, at which it is "
            f"{self._predicted(calibration, shares):.2f} ms; expected at least "
            "that, or a calibration with another risk (--risk) or none"
        )


@dataclass(frozen=True)
class FramesPerSecond:
    """As many images hard as a rate, in images per second, allows on average.

    For ``on_impossible`` see :class:`LatencyBudget`.
    """

    needs_times: ClassVar[bool] = True
    signals: ClassVar[tuple[str, ...]] = (EASINESS, CHOICE_SCORES)
    fps: float
    adaptive: bool = False
    on_impossible: Literal["raise", "nearest"] = "raise"

    def __post_init__(self) -> None:
        check_number("a rate", self.fps, 0, math.inf, "30 frames per second", above=True)
        check_flag(self.adaptive)
        check_on_impossible(self.on_impossible)

    def __str__(self) -> str:
        return f"{self.fps:g} frames per second{ending_of(self.adaptive)}"

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`dyninfer.routing.goals.Goal`: a mean budget of 1000 / ``fps`` ms."""
        budget = LatencyBudget(
            1000 / self.fps, adaptive=self.adaptive, on_impossible=self.on_impossible
        )
        return budget.resolve(calibration, f"{self} ({budget.ms:.4g} ms)")
