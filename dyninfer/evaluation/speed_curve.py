"""Accuracy and time of one detector at several policies, each run for real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.evaluation.scoring import RoutedScores
from dyninfer.evaluation.way_times import Timed, WayTimes, time_policies
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import Goal, HardFraction
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray, Int64Array

HARD_FRACTIONS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class CurvePoint:
    """One policy, as it was asked for, on all pictures.

    ``hard_share`` of them, in [0, 1], took the last way; for the milliseconds of ``timed`` see
    :func:`pooled_times`.
    """

    policy: Policy | Goal
    hard_share: float
    scores: Scores
    timed: Timed

    @property
    def mean_ms(self) -> float:
        """Mean milliseconds of a picture."""
        return float(np.mean(self.timed.ms))


def spread_policies() -> list[Policy | Goal]:
    """From all easy to all hard, with the shares of :data:`HARD_FRACTIONS` between."""
    return [AlwaysEasy(), *(HardFraction(share) for share in HARD_FRACTIONS), AlwaysHard()]


def measure_points(
    detector: Detector,
    pictures: Sequence[ImageArray],
    policies: Sequence[Policy | Goal],
    scores: RoutedScores,
    progress: Callable[[], None] = lambda: None,
) -> list[CurvePoint]:
    """Run every picture (h, w, 3) uint8 BGR at every policy, as :func:`time_policies` does.

    ``scores`` are of the same pictures.
    """
    active = [detector.resolve(policy) for policy in policies]  # calibrations are read once
    timed = time_policies(detector, pictures, active, progress)
    ways = np.array([[a.exit_index for a in of_policy.answers] for of_policy in timed])
    pooled = pooled_times(np.array([of_policy.ms for of_policy in timed]), ways)
    last = len(detector.manifest.ways) - 1
    return [
        CurvePoint(
            policy,
            float((ways[index] == last).mean()),
            scores.at(ways[index]),
            Timed(tuple(pooled[index].tolist()), timed[index].answers),
        )
        for index, policy in enumerate(policies)
    ]


def pooled_times(spent_ms: Float64Array, ways: Int64Array) -> Float64Array:
    """Each time as the mean of all runs in which the same picture took the same way.

    Policies that send a picture the same way do the same work; what differs between their times
    is the machine's noise, which would hide the difference between the policies. Both arrays are
    (policies, N).
    """
    pooled = np.empty_like(spent_ms)
    for index in np.unique(ways):
        here = ways == index
        sums = np.where(here, spent_ms, 0).sum(axis=0)
        means = np.broadcast_to(sums / np.maximum(here.sum(axis=0), 1), here.shape)
        pooled[here] = means[here]
    return pooled


def times_of_ends(easy: CurvePoint, hard: CurvePoint) -> WayTimes:
    """Times of the exits of a cascade of two, from all pictures easy and from all hard."""
    ends = (easy.timed, hard.timed)
    return WayTimes(tuple(end.ms for end in ends), tuple(end.mean_steps for end in ends))
