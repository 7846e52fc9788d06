"""Speed and accuracy in the user's terms; a bundle's calibration turns them into a policy."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from dyninfer.bundle.calibration import BiasRow, Calibration, CalibrationRow
from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS
from dyninfer.errors import PolicyError
from dyninfer.plain_text import counted
from dyninfer.routing.certify import images_needed
from dyninfer.routing.control import Controller, start_controller
from dyninfer.routing.control_law import Cost
from dyninfer.routing.cost_bias import CostBias
from dyninfer.routing.policy import AlwaysHard, Policy, Threshold
from dyninfer.routing.thresholds import (
    SEND_ALL,
    SEND_NONE,
    distinct_thresholds,
    exit_shares_along,
    hard_fraction_at,
    percentile_thresholds,
    shared_easiness,
)
from dyninfer.types import Float64Array, as_float, shown

logger = logging.getLogger("dyninfer")

MAX_DEVIATION = 0.05
"""Most by which ties may keep the hard fraction from what was asked for."""
_ROUNDING = 1e-9


@runtime_checkable
class Goal(Protocol):
    """Something to hold, that a calibration turns into a policy."""

    needs_times: ClassVar[bool]
    """Whether the calibration's milliseconds must be those of this processor."""
    signals: ClassVar[tuple[str, ...]]
    """What it can decide by: ``easiness``, ``choice_scores``, or either."""

    def resolve(self, calibration: Calibration, /) -> Policy:
        """The policy that holds it.

        Raises:
            PolicyError: it cannot be held, by the calibration's figures, or they are missing.
        """


class IncompleteCalibrationError(PolicyError):
    """A calibration of the right engines was made without what a goal needs.

    ``options`` of ``dyninfer calibrate`` add it, or none, where an older version made it.
    """

    def __init__(self, reason: str, options: str = "") -> None:
        command = f"dyninfer calibrate BUNDLE --images FOLDER {options}".rstrip()
        super().__init__(f"{reason}; run: {command}")
        self.reason = reason
        self.options = options


def describe_setting(asked: Policy | Goal, active: Policy) -> str:
    """What was asked for and, where that is a goal, the threshold that it came to."""
    if asked is active:
        return str(asked)
    if isinstance(active, Controller):
        return f"{asked}: threshold {active.threshold:.4g} by now"
    return f"{asked}: {active}"


def check_number(
    what: str, value: object, low: float, high: float, example: str, *, above: bool = False
) -> None:
    """Refuse what is no finite number in [low, high], or with ``above`` in (low, high]."""
    number = as_float(value)
    if not low <= number <= high or math.isinf(number) or (above and number == low):
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"above {low:g}"
        raise PolicyError(f"{what} is {shown(value)}, expected a number {span}, such as {example}")


def check_flag(adaptive: object) -> None:
    """Refuse anything but True and False."""
    if not isinstance(adaptive, bool):
        raise PolicyError(f"adaptive is {adaptive!r}, expected True or False")


def check_on_impossible(chosen: object) -> None:
    """Refuse anything but the two answers to what is not possible."""
    if chosen not in ("raise", "nearest"):
        raise PolicyError(f"on_impossible is {shown(chosen)}, expected 'raise' or 'nearest'")


def ending_of(adaptive: bool) -> str:
    """What an adaptive goal adds to its description."""
    return ", adaptive" if adaptive else ""


@dataclass(frozen=True)
class HardFraction:
    """A share of the images, in [0, 1], reaches the last exit: the least easy ones.

    The threshold is that percentile of the calibration's easiness. With ``adaptive`` it follows
    the images (see :mod:`dyninfer.routing.control_law`), but never leaves the certified range where
    the calibration holds a certificate.
    """

    needs_times: ClassVar[bool] = False
    signals: ClassVar[tuple[str, ...]] = (EASINESS,)
    fraction: float
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_number("a hard fraction", self.fraction, 0, 1, "0.3 for 30%")
        check_flag(self.adaptive)

    def __str__(self) -> str:
        return f"{100 * self.fraction:g}% hard{ending_of(self.adaptive)}"

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Goal`; refused where ties in the easiness stand in the way."""
        easiness = calibration.easiness_array
        if 0 < self.fraction < 1:
            self._refuse_constant(shared_easiness(easiness))
        if self.adaptive:
            self._look_at_certificate(calibration)
            return start_controller(calibration, Cost.HARD, self.fraction, (0.0, 1.0), str(self))
        if self.fraction in (0, 1):
            return Threshold(SEND_ALL if self.fraction else SEND_NONE)
        threshold = float(percentile_thresholds(easiness, 100 * self.fraction))
        self._refuse_ties(easiness, threshold)
        return Threshold(threshold)

    def _look_at_certificate(self, calibration: Calibration) -> None:
        """A controller stays in the certified range, which may lie above the share."""
        certificate = calibration.certificate
        if certificate is None or certificate.hard_fraction <= self.fraction:
            return
        if certificate.hard_fraction >= 1:
            raise PolicyError(f"{self} cannot be held: {_covers_nothing(calibration)}, or none")
        logger.warning(
            "%s: the certified threshold sends %.1f%% of the images on, and fewer are never sent",
            self,
            100 * certificate.hard_fraction,
        )

    def _refuse_constant(self, shared: Float64Array) -> None:
        if shared.min() == shared.max():
            value = f"{shared[0]:.4g}" if shared[0] >= 0 else "NaN"
            raise PolicyError(
                f"{self} is not possible: the router gave the same easiness to "
                f"{counted(len(shared), 'calibration image')}, all of them ({value}), so it cannot "
                "tell them apart; use AlwaysEasy or AlwaysHard, or train the router again"
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
            f"{self} is not possible: too many of the {count} calibration images share one "
            f"easiness or have none (NaN); expected {expected}"
        )


@dataclass(frozen=True)
class Accuracy:
    """As few images hard as keep COCO AP within ``max_ap_drop`` points of the last exit's.

    Of a chooser it is the largest cost bias that does, against its dearest branch.

    A point is 0.01 of an AP in [0, 1]; of a classifier it is top-1 that counts. It is the AP on
    the calibration's labelled images, whose number decides how well it stands for others.
    """

    needs_times: ClassVar[bool] = False
    signals: ClassVar[tuple[str, ...]] = (EASINESS, CHOICE_SCORES)
    max_ap_drop: float

    def __post_init__(self) -> None:
        check_number("a drop in AP", self.max_ap_drop, 0, 100, "0.5 for half a point")

    def __str__(self) -> str:
        return f"at most {self.max_ap_drop:g} AP below the last exit"

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Goal`; the cheapest row of the table from which on all dearer ones do."""
        best = calibration.ways[calibration.dearest].scores.primary
        if best is None:
            raise IncompleteCalibrationError(
                f"{self} needs a calibration on labelled images and this one has no "
                f"{calibration.metrics[0]}",
                "--annotations LABELS",
            )
        policy: Policy | None = None
        rows: Sequence[BiasRow | CalibrationRow] = calibration.biases or calibration.rows
        for row in reversed(rows):
            found = row.scores.primary
            if found is None or found < best - self.max_ap_drop / 100 - _ROUNDING:
                break
            policy = CostBias(row.bias) if isinstance(row, BiasRow) else Threshold(row.threshold)
        if policy is None:
            logger.warning("%s: no smaller share of hard images keeps that, so all are hard", self)
        return policy or (Threshold(SEND_ALL) if calibration.rows else AlwaysHard())


@dataclass(frozen=True)
class CertifiedRisk:
    """The lowest threshold that the calibration's certificate covers."""

    needs_times: ClassVar[bool] = False
    signals: ClassVar[tuple[str, ...]] = (EASINESS,)

    def __str__(self) -> str:
        return "the certified threshold"

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`Goal`."""
        if calibration.certificate is None:
            raise IncompleteCalibrationError(
                f"{self} needs a certificate and the calibration has none", "--risk 0.05"
            )
        if calibration.certificate.hard_fraction >= 1:
            raise PolicyError(f"{self} is not possible: {_covers_nothing(calibration)}")
        return Threshold(calibration.certificate.threshold)


def _covers_nothing(calibration: Calibration) -> str:
    """Why a certificate sends every image to the last exit, and what to do."""
    certificate, count = calibration.certificate, calibration.images.count
    assert certificate is not None
    needed = images_needed(certificate.risk, certificate.confidence)
    least = f", where at least {needed} are needed" if needed > count else ""
    return (
        f"the certificate of risk {certificate.risk:g} only covers sending every image to the "
        f"last exit, with {counted(count, 'picture')}{least}; use AlwaysHard, or calibrate with "
        "more pictures, or a larger risk (--risk)"
    )
