"""A goal in multiply-accumulates, which hold for every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS
from dyninfer.routing.goals import IncompleteCalibrationError, check_number, check_on_impossible
from dyninfer.routing.policy import Policy
from dyninfer.routing.settings import cannot_be_kept, nearest_or_raise, settings_of

GIGA = 1e9


@dataclass(frozen=True)
class MacsBudget:
    """At most ``gmacs`` thousand million multiply-accumulates per image, on average.

    They are those of every stage that runs, a predictor or router included: with shares p_j of the
    images at ways of C_j, the sum of p_j * C_j. A chooser keeps its own choice where that fits, and
    gets the least cost bias that does otherwise; of a cascade as many images are hard as fit.

    This is the target that DRNet's training calls alpha (Wang et al., "Dynamic Resolution Network",
    NeurIPS 2021), also counted in G: a larger one allows more. For ``on_impossible`` see
    :class:`dyninfer.LatencyBudget`.
    """

    needs_times: ClassVar[bool] = False
    signals: ClassVar[tuple[str, ...]] = (EASINESS, CHOICE_SCORES)
    gmacs: float
    on_impossible: Literal["raise", "nearest"] = "raise"

    def __post_init__(self) -> None:
        example = "2.5 for 2.5 GMACs"
        check_number("a budget of GMACs", self.gmacs, 0, math.inf, example, above=True)
        check_on_impossible(self.on_impossible)

    def __str__(self) -> str:
        return f"{self.gmacs:g} GMACs on average"

    def resolve(self, calibration: Calibration) -> Policy:
        """See :class:`dyninfer.Goal`; refused where the cheapest setting costs more."""
        if not calibration.macs:
            raise IncompleteCalibrationError(f"{self} needs the multiply-accumulates of each way")
        found, costs = settings_of(calibration), np.array(calibration.macs) / GIGA
        policy = found.dearest_within(costs, self.gmacs)
        if policy is not None:
            return policy
        least, most = (f"{found.shares[end] @ costs:.4g} GMACs" for end in (0, -1))
        reason = cannot_be_kept(str(self), found, least, most)
        return nearest_or_raise(self.on_impossible, found.policy(0), reason)
