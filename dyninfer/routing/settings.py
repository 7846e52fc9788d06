"""Everything that a bundle's one knob can do to its calibration's images, the cheapest first.

The knob of a cascade is its threshold, that of a chooser its cost bias. A budget takes the dearest
setting that fits, whatever it counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.calibration import Calibration
from dyninfer.errors import PolicyError
from dyninfer.routing.cost_bias import CostBias, bias_steps
from dyninfer.routing.goals import IncompleteCalibrationError
from dyninfer.routing.policy import Chosen, Policy, Threshold
from dyninfer.routing.thresholds import distinct_thresholds, exit_shares_along
from dyninfer.types import Float64Array

logger = logging.getLogger("dyninfer")

ROUNDING = 1e-9
"""Of a cost against its limit."""


@dataclass(frozen=True)
class Settings:
    """Of each setting the ``shares`` (settings, ways) of the images that take each way.

    ``policy`` makes the policy of one; ``ends`` say what the first and the last are.
    """

    shares: Float64Array
    policy: Callable[[int], Policy]
    ends: tuple[str, str]

    def dearest_within(self, costs: npt.ArrayLike, limit: float) -> Policy | None:
        """The last that spends at most ``limit`` on average; None where the first spends more.

        ``costs`` (ways,) are of an image that takes each. In milliseconds a dearer way may be the
        faster one, so a later setting may fit where an earlier one does not.
        """
        fits = self.shares @ np.asarray(costs, np.float64) <= limit + ROUNDING
        return self.policy(int(np.flatnonzero(fits)[-1])) if fits[0] else None


def settings_of(calibration: Calibration) -> Settings:
    """Of a cascade from all images easy to all hard; of a chooser up to its own choice.

    What a chooser would not choose for accuracy's sake, no budget makes it choose.

    Raises:
        IncompleteCalibrationError: an older version made it, which did not keep a chooser's scores.
    """
    if calibration.choice_scores:
        steps = bias_steps(calibration.choice_scores_array.T, calibration.macs)

        def biased(index: int) -> Policy:
            bias = steps.bias(index)
            return CostBias(bias) if bias else Chosen()

        shares = steps.shares[: steps.chosen + 1]
        return Settings(shares, biased, ("every image at the cheapest branch", "as chosen"))
    if not calibration.easiness:
        raise IncompleteCalibrationError("the calibration was made without the chooser's scores")
    easiness = calibration.easiness_array
    thresholds = distinct_thresholds(easiness)
    shares = exit_shares_along(easiness, thresholds)
    broken = f" ({shares[0, -1]:.1%} are hard all the same: their easiness is NaN)"
    first = "every image easy" + broken * bool(shares[0, -1])
    ends = first, "every image hard"
    return Settings(shares, lambda index: Threshold(float(thresholds[index])), ends)


def cannot_be_kept(asked: str, settings: Settings, least: str, most: str) -> str:
    """That a budget is too small; ``least`` and ``most`` are spent at the two ends."""
    first, last = settings.ends
    return (
        f"{asked} cannot be kept: with {first} it is {least}, with {last} {most}; expected at "
        "least the former"
    )


def nearest_or_raise(on_impossible: str, nearest: Policy, reason: str) -> Policy:
    """The setting that comes nearest, for those who asked for it.

    Raises:
        PolicyError: they did not.
    """
    if on_impossible == "raise":
        raise PolicyError(reason)
    logger.warning("%s; the nearest setting is used: %s", reason, nearest)
    return nearest
