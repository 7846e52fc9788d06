"""Scores, shares and time of a detector at its policy, or at several, each run for real."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.outcomes import ReadingNotes, read_all
from dyninfer.evaluation.scoring import SCORING, RoutedScores
from dyninfer.evaluation.way_times import Timed, time_once, time_policies
from dyninfer.results.answers import Answer
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import Goal, HardFraction, describe_setting
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray, Int64Array

HARD_FRACTIONS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class PolicyResult:
    """One policy on the pictures that could be read.

    Attributes:
        policy: what was set, in words, and the threshold that a goal came to.
        title: what ``scores`` are, in one word.
        scores: everything that the task's scoring says, by name.
        exit_shares: share of the pictures that took each way.
        mean_ms: of a picture, from the decoded one to answers with the bundle's own options.
        samples: with warnings about pictures that could not be read.
    """

    policy: str
    title: str
    scores: Mapping[str, float | None]
    exit_shares: tuple[float, ...]
    mean_ms: float
    samples: Samples


def evaluate_policy(
    detector: Detector,
    samples: Samples,
    time_limit: int,
    progress: Callable[[], None] = lambda: None,
) -> PolicyResult:
    """Scores at the detector's policy, of whatever bundle.

    At most ``time_limit`` pictures, spread evenly, are run once more for their time.

    Raises:
        InputError: no picture can be read, or there is nothing to find in any.
    """
    scoring = SCORING[detector.manifest.task]
    options = scoring.options(detector.manifest)
    notes = ReadingNotes()
    kept: list[Sample] = []
    spent_ms: list[float] = []
    found: list[Answer] = []
    stride = math.ceil(len(samples.items) / time_limit)
    for sample, image in read_all(samples.items, notes, progress):
        found += detector.answers([image], options=options)
        if len(kept) % stride == 0:
            spent_ms.append(time_once(detector, image)[0])
        kept.append(sample)
    readable = notes.left_of(samples, kept)
    scoring.check(readable, detector.class_names)
    taken = np.bincount([f.exit_index for f in found], minlength=len(detector.manifest.ways))
    return PolicyResult(
        describe_setting(detector.policy, detector.active_policy),
        scoring.title,
        scoring.measure(readable, found, len(detector.class_names)),
        tuple((taken / len(found)).tolist()),
        float(np.mean(spent_ms)),
        readable,
    )


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
