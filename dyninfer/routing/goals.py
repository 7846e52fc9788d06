"""Speed and accuracy in the user's terms; a bundle's calibration turns them into a policy."""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.bundle.calibration import Calibration
from dyninfer.errors import PolicyError
from dyninfer.routing.control_law import ControlSettings, Cost
from dyninfer.routing.goal import (
    Target,
    certified_threshold,
    check_flag,
    check_number,
    ending_of,
    start_controller,
)
from dyninfer.routing.latency import FramesPerSecond, LatencyBudget
from dyninfer.routing.policy import Policy, Threshold
from dyninfer.routing.thresholds import (
    SEND_ALL,
    SEND_NONE,
    distinct_thresholds,
    exit_shares_along,
    hard_fraction_at,
    percentile_thresholds,
    shared_easiness,
)
from dyninfer.types import Float64Array

__all__ = [
    "Accuracy",
    "CertifiedRisk",
    "FramesPerSecond",
    "HardFraction",
    "LatencyBudget",
    "Target",
]

MAX_DEVIATION = 0.05
"""Most by which ties may keep the hard fraction from what was asked for."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class HardFraction:
    """A share of the images, in [0, 1], reaches the last exit: the least easy ones.

    The threshold is that percentile of the calibration's easiness. With ``adaptive`` it follows
    the images (see :mod:`dyninfer.routing.control_law`), but never leaves the certified range where
    the calibration holds a certificate.
    """

    fraction: float
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_number("a hard fraction", self.fraction, 0, 1, "0.3 for 30%")
        check_flag(self.adaptive)

    def __str__(self) -> str:
        return f"{100 * self.fraction:g}% hard{ending_of(self.adaptive)}"

    @property
    def needs_times(self) -> bool:
        """False: only the easiness counts."""
        return False

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Target`; refused where ties in the easiness stand in the way."""
        easiness = calibration.easiness_array
        if 0 < self.fraction < 1:
            self._refuse_constant(shared_easiness(easiness))
        if self.adaptive:
            settings = ControlSettings(
                Cost.HARD, self.fraction, least_threshold=certified_threshold(calibration)
            )
            return start_controller(calibration, settings, (0.0, 1.0), str(self))
        if self.fraction in (0, 1):
            return Threshold(SEND_ALL if self.fraction else SEND_NONE)
        threshold = float(percentile_thresholds(easiness, 100 * self.fraction))
        self._refuse_ties(easiness, threshold)
        return Threshold(threshold)

    def _refuse_constant(self, shared: Float64Array) -> None:
        if shared.min() == shared.max():
            value = f"{shared[0]:.4g}" if shared[0] >= 0 else "NaN"
            raise PolicyError(
                f"{self} cannot be had: the router gave all {len(shared)} calibration images the "
                f"same easiness ({value}), so it tells none from another; use AlwaysEasy or "
                "AlwaysHard, or train the router again"
            )

    def _refuse_ties(self, easiness: Float64Array, threshold: float) -> None:
        count = easiness.shape[1]
        reached = hard_fraction_at(easiness, threshold)
        if abs(reached - self.fraction) <= max(MAX_DEVIATION, 2 / count):
            return
        shares = exit_shares_along(easiness, distinct_thresholds(easiness))[:, -1]
        nearest = {*shares[shares <= self.fraction][-1:], *shares[shares >= self.fraction][:1]}
        expected = " or ".join(f"{share:.1%}" for share in sorted(nearest))
        raise PolicyError(
            f"{self} cannot be had: too many of the {count} calibration images share one easiness "
            f"or have none (NaN); expected {expected}"
        )


@dataclass(frozen=True)
class Accuracy:
    """As few images hard as keep COCO AP within ``max_ap_drop`` points of the last exit's.

    A point is 0.01 of an AP in [0, 1]; of a classifier it is top-1 that counts. It is the AP on
    the calibration's labelled images, whose number decides how well it stands for others.
    """

    max_ap_drop: float

    def __post_init__(self) -> None:
        check_number("a drop in AP", self.max_ap_drop, 0, 100, "0.5 for half a point")

    def __str__(self) -> str:
        return f"at most {self.max_ap_drop:g} AP below the last exit"

    @property
    def needs_times(self) -> bool:
        """False: only accuracy counts."""
        return False

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Target`; the lowest threshold of the table from which on all rows do."""
        best = calibration.ways[-1].scores.primary
        if best is None:
            raise PolicyError(
                f"{self} needs a calibration on labelled images and this one has no "
                f"{calibration.metrics[0]}; run: "
                "dyninfer calibrate BUNDLE --images FOLDER --annotations LABELS"
            )
        threshold = SEND_ALL
        for row in reversed(calibration.rows):
            found = row.scores.primary
            if found is None or found < best - self.max_ap_drop / 100 - _ROUNDING:
                break
            threshold = row.threshold
        return Threshold(threshold)


@dataclass(frozen=True)
class CertifiedRisk:
    """The lowest threshold that the calibration's certificate covers."""

    def __str__(self) -> str:
        return "the certified threshold"

    @property
    def needs_times(self) -> bool:
        """False: only the losses count."""
        return False

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Target`."""
        if calibration.certificate is None:
            raise PolicyError(
                f"{self} needs a certificate and the calibration has none; run: "
                "dyninfer calibrate BUNDLE --images FOLDER --risk 0.05"
            )
        return Threshold(calibration.certificate.threshold)
