"""Detectors run for real: how long images take along every way, scores and time at policies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.interleaved import mean_interval, round_order, warm_up
from dyninfer.evaluation.outcomes import ReadingNotes, TracePicture, answer_at, read_all
from dyninfer.evaluation.scoring import SCORING, RoutedScores
from dyninfer.results.answers import Answer
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import Goal, HardFraction, describe_setting
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, LeaveAt, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.spans import POSTPROCESS, PREPARE
from dyninfer.types import Float64Array, ImageArray, Int64Array

HARD_FRACTIONS = (0.25, 0.5, 0.75)
NS_PER_MS = 1e6
NARROW = 0.05
"""Half of a 95 % interval over its mean, from which on the mean is known well enough."""
MOST_PASSES = 10
MOST_SECONDS = 30.0


@dataclass(frozen=True)
class WayTimes:
    """Times of images that take each way, one image at a time.

    Attributes:
        ms: for every way, wall-clock milliseconds of every image, from the decoded picture to
            answers with the bundle's own options.
        step_ms: for every way, mean milliseconds of its steps, by the names in
            :mod:`dyninfer.spans`, and of the stages that ran.
    """

    ms: tuple[tuple[float, ...], ...]
    step_ms: tuple[Mapping[str, float], ...]

    @classmethod
    def of(cls, runs: Sequence[Timed]) -> WayTimes:
        """From the runs of all pictures along each way."""
        return cls(tuple(run.ms for run in runs), tuple(run.mean_steps for run in runs))

    @property
    def intervals_ms(self) -> tuple[tuple[float, float], ...]:
        """The 95 % interval of each way's mean."""
        return tuple(mean_interval(spent) for spent in self.ms)

    @property
    def known(self) -> bool:
        """Whether each way's mean is known to :data:`NARROW` of it."""
        pairs = zip(self.ms, self.intervals_ms, strict=True)
        return all(high - low <= 2 * NARROW * np.mean(spent) for spent, (low, high) in pairs)


@dataclass(frozen=True)
class Timed:
    """Runs of pictures at one policy: wall-clock milliseconds and answers, in order."""

    ms: tuple[float, ...]
    answers: tuple[Answer, ...]

    def and_then(self, later: Timed) -> Timed:
        """These runs and later ones."""
        return Timed(self.ms + later.ms, self.answers + later.answers)

    @property
    def mean_steps(self) -> dict[str, float]:
        """Mean milliseconds of each step, of runs that all had the same steps."""
        names = self.answers[0].timings_ms
        return {n: float(np.mean([a.timings_ms[n] for a in self.answers])) for n in names}


def time_policies(
    detector: Detector,
    pictures: Iterable[ImageArray],
    policies: Sequence[Policy],
    progress: Callable[[], None] = lambda: None,
) -> list[Timed]:
    """Run every picture, one at a time, at every policy.

    The policies take turns on each picture, in an order that changes, so that a machine whose
    speed drifts is fair to all. Each is warmed up on the first picture until its times are stable.
    Pictures are (h, w, 3) uint8 BGR, at least one; they may come from a generator, and decoding
    them is not in the times.
    """
    runs: list[list[tuple[float, Answer]]] = [[] for _ in policies]
    names = [str(index) for index in range(len(policies))]
    for number, picture in enumerate(pictures):
        if not number:
            for policy in policies:
                warm_up(partial(_once_ms, detector, picture, policy))
        for index in map(int, round_order(names, number)):
            runs[index].append(time_once(detector, picture, policies[index]))
        progress()
    return [
        Timed(tuple(ms for ms, _ in of_policy), tuple(answer for _, answer in of_policy))
        for of_policy in runs
    ]


def time_once(
    detector: Detector, picture: ImageArray, policy: Policy | None = None
) -> tuple[float, Answer]:
    """Milliseconds of one call, and what it gave; None for the detector's policy."""
    start = time.perf_counter_ns()
    (answer,) = detector.answers([picture], policy=policy)
    return (time.perf_counter_ns() - start) / NS_PER_MS, answer


def _once_ms(detector: Detector, picture: ImageArray, policy: Policy) -> float:
    return time_once(detector, picture, policy)[0]


def measure_way_times(
    detector: Detector,
    pictures: Iterable[ImageArray],
    progress: Callable[[], None] = lambda: None,
) -> WayTimes:
    """Time every way on every picture, as :func:`time_policies` does."""
    policies = [LeaveAt(index) for index in range(len(detector.manifest.ways))]
    return WayTimes.of(time_policies(detector, pictures, policies, progress))


def settled_way_times(
    detector: Detector,
    read: Callable[[], Iterable[ImageArray]],
    progress: Callable[[], None] = lambda: None,
) -> WayTimes:
    """Time every way in passes over the pictures until their means are known.

    They are where :attr:`WayTimes.known` says so; there are at most :data:`MOST_PASSES`, and none
    begins :data:`MOST_SECONDS` after the first. ``read`` gives the pictures of one pass.
    """
    policies = [LeaveAt(index) for index in range(len(detector.manifest.ways))]
    start, runs = time.perf_counter(), [Timed((), ()) for _ in policies]
    for number in range(MOST_PASSES):
        if number and (WayTimes.of(runs).known or time.perf_counter() - start > MOST_SECONDS):
            break
        found = time_policies(detector, read(), policies, progress)
        runs = [old.and_then(new) for old, new in zip(runs, found, strict=True)]
    return WayTimes.of(runs)


def last_way_alone_ms(times: WayTimes, manifest: Manifest) -> float:
    """Mean milliseconds if the last way's network stood alone: that way's, less what it would skip.

    Neither routers nor heads of earlier exits would run then. Pictures that only earlier exits'
    own stages read would not be prepared: where the last exit needs none of those, their
    preparation, which is all that the exit before it prepared, is taken off.
    """
    segments = alone(manifest, len(manifest.ways) - 1)
    last = times.step_ms[-1]
    needed = {*stages_of(segments), PREPARE, POSTPROCESS}
    skipped_ms = sum(spent for name, spent in last.items() if name not in needed)
    alone_ms = float(np.mean(times.ms[-1])) - skipped_ms
    way = manifest.ways[-1]
    earlier = set(manifest.roles) - {way.body, way.head}
    read = {spec.name for stage in earlier for spec in manifest.stages[stage].inputs}
    if any(read.intersection(step.images) for segment in segments for step in segment.steps):
        return alone_ms
    return alone_ms - times.step_ms[-2][PREPARE]


@dataclass(frozen=True)
class PolicyResult:
    """One policy on the pictures that could be read.

    Attributes:
        policy: what was set, in words, and the threshold that a goal came to.
        title: what ``scores`` are, in one word.
        scores: everything that the task's scoring says, by name.
        exit_shares: share of the pictures that took each way.
        hard_fraction: of these, that of the hardest way.
        mean_ms: of a picture, from the decoded one to answers with the bundle's own options.
        samples: with warnings about pictures that could not be read.
    """

    policy: str
    title: str
    scores: Mapping[str, float | None]
    exit_shares: tuple[float, ...]
    hard_fraction: float
    mean_ms: float
    samples: Samples


def evaluate_policy(
    detector: Detector,
    samples: Samples,
    time_limit: int,
    progress: Callable[[], None] = lambda: None,
    trace_of: TracePicture | None = None,
) -> PolicyResult:
    """Scores at the detector's policy, of whatever bundle.

    At most ``time_limit`` pictures, spread evenly, are run once more for their time. With
    ``trace_of``, answers come from that instead of the engines, whose times stay.

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
    for sample, image in read_all(samples.items, notes, progress, detector.max_pixels):
        if trace_of is None:
            found += detector.answers([image], options=options)
        else:
            policy = detector.active_policy
            found.append(answer_at(trace_of(image), detector.points, policy, options))
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
        float(taken[detector.manifest.ways_by_cost[-1]] / len(found)),
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
