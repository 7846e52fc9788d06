"""How long images take at several policies, and along every way, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.interleaved import round_order, warm_up
from dyninfer.results.answers import Answer
from dyninfer.routing.policy import LeaveAt, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.spans import POSTPROCESS, PREPARE
from dyninfer.types import ImageArray

NS_PER_MS = 1e6


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


@dataclass(frozen=True)
class Timed:
    """Runs of pictures at one policy: wall-clock milliseconds and answers, in order."""

    ms: tuple[float, ...]
    answers: tuple[Answer, ...]

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


def last_way_alone_ms(times: WayTimes, manifest: Manifest) -> float:
    """Mean milliseconds if the last way's network stood alone, from the steps of that way.

    Neither routers nor heads of earlier exits would run then. Pictures that only earlier exits'
    own stages read would not be prepared: where the last exit needs none of those, their
    preparation, which is all that the exit before it prepared, is taken off.
    """
    segments = alone(manifest, len(manifest.ways) - 1)
    last = times.step_ms[-1]
    alone_ms = sum(last[name] for name in (*stages_of(segments), PREPARE, POSTPROCESS))
    way = manifest.ways[-1]
    earlier = set(manifest.roles) - {way.body, way.head}
    read = {spec.name for stage in earlier for spec in manifest.stages[stage].inputs}
    if any(read.intersection(step.images) for segment in segments for step in segment.steps):
        return alone_ms
    return alone_ms - times.step_ms[-2][PREPARE]
