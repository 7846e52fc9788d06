"""Accuracy and time of one detector at several policies, each run for real."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.evaluation.exit_times import NS_PER_MS, ExitTimes, mean_steps
from dyninfer.evaluation.interleaved import round_order
from dyninfer.evaluation.routed_precision import RoutedPrecision
from dyninfer.results.detections import Detections
from dyninfer.routing.goals import HardFraction, Target
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray, Int64Array

HARD_FRACTIONS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class CurvePoint:
    """One policy on all pictures.

    Attributes:
        policy: what was set.
        hard_share: share of the pictures that reached the last exit, in [0, 1].
        ap, ap50: COCO average precision of the exits that the policy chose, in [0, 1].
        times_ms: wall-clock milliseconds of every picture, from the decoded picture to detections
            as an application wants them, that is above a confidence of 0.25; see
            :func:`pooled_times`.
        results: these detections of every picture, in order.
    """

    policy: Policy | Target
    hard_share: float
    ap: float
    ap50: float
    times_ms: tuple[float, ...]
    results: tuple[Detections, ...]

    @property
    def mean_ms(self) -> float:
        """Mean milliseconds of a picture."""
        return float(np.mean(self.times_ms))


def spread_policies() -> list[Policy | Target]:
    """From all easy to all hard, with the shares of :data:`HARD_FRACTIONS` between."""
    return [AlwaysEasy(), *(HardFraction(share) for share in HARD_FRACTIONS), AlwaysHard()]


def measure_points(
    detector: Detector,
    pictures: Sequence[ImageArray],
    policies: Sequence[Policy | Target],
    precision: RoutedPrecision,
    progress: Callable[[], None] = lambda: None,
) -> list[CurvePoint]:
    """Run every picture, one at a time, at every policy.

    The policies take turns on each picture, in an order that changes, so that a machine whose
    speed drifts is fair to all.

    Args:
        detector: an opened bundle.
        pictures: (h, w, 3) uint8 BGR.
        policies: what to measure.
        precision: of the same pictures.
        progress: called after every picture.
    """
    active = [detector.resolve(policy) for policy in policies]  # calibrations are read once
    names = [str(index) for index in range(len(policies))]
    results: list[list[Detections]] = [[] for _ in policies]
    spent_ms = np.zeros((len(policies), len(pictures)))
    for number, picture in enumerate(pictures):
        for index in map(int, round_order(names, number)):
            start = time.perf_counter_ns()
            results[index].append(detector(picture, policy=active[index]))
            spent_ms[index, number] = (time.perf_counter_ns() - start) / NS_PER_MS
        progress()
    exits = np.array([[result.exit_index for result in found] for found in results])
    times_ms = pooled_times(spent_ms, exits)
    last = len(detector.manifest.ways) - 1
    return [
        _point(policy, tuple(results[index]), times_ms[index], precision, last)
        for index, policy in enumerate(policies)
    ]


def _point(
    policy: Policy | Target,
    results: tuple[Detections, ...],
    times_ms: Float64Array,
    precision: RoutedPrecision,
    last_exit: int,
) -> CurvePoint:
    exits = np.array([result.exit_index for result in results])
    reached = precision.at(exits)
    hard = float((exits == last_exit).mean())
    ap, ap50 = reached.ap or 0.0, reached.ap50 or 0.0
    return CurvePoint(policy, hard, ap, ap50, tuple(times_ms.tolist()), results)


def pooled_times(spent_ms: Float64Array, exits: Int64Array) -> Float64Array:
    """Each time as the mean of all runs in which the same picture left at the same exit.

    Policies that send a picture to the same exit do the same work; what differs between their
    times is the machine's noise, which would hide the difference between the policies.

    Args:
        spent_ms: (policies, N) milliseconds.
        exits: (policies, N) exit at which each picture left.
    """
    pooled = np.empty_like(spent_ms)
    for index in np.unique(exits):
        here = exits == index
        sums = np.where(here, spent_ms, 0).sum(axis=0)
        means = np.broadcast_to(sums / np.maximum(here.sum(axis=0), 1), here.shape)
        pooled[here] = means[here]
    return pooled


def times_of_ends(easy: CurvePoint, hard: CurvePoint) -> ExitTimes:
    """Times of the exits of a cascade of two, from all pictures easy and from all hard."""
    ends = (easy, hard)
    return ExitTimes(
        tuple(point.times_ms for point in ends),
        tuple(mean_steps([found.timings_ms for found in point.results]) for point in ends),
    )
