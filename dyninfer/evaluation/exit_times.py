"""How long an image takes that leaves at each exit, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.interleaved import round_order, warm_up
from dyninfer.results.detections import Detections
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.plan import alone, stages_of
from dyninfer.spans import POSTPROCESS, PREPARE
from dyninfer.types import ImageArray

NS_PER_MS = 1e6


@dataclass(frozen=True)
class ExitTimes:
    """Times of images that leave at each exit, one image at a time.

    Attributes:
        exit_ms: for every exit, wall-clock milliseconds of every image, from the decoded picture
            to detections with the default :class:`dyninfer.Postprocess`.
        step_ms: for every exit, mean milliseconds of its steps, by the names in
            :mod:`dyninfer.spans`, and of the stages that ran.
    """

    exit_ms: tuple[tuple[float, ...], ...]
    step_ms: tuple[Mapping[str, float], ...]


def measure_exit_times(
    detector: Detector,
    pictures: Iterable[ImageArray],
    progress: Callable[[], None] = lambda: None,
) -> ExitTimes:
    """Time every exit on every picture, the exits in turns, so that a drift is fair to all.

    Each exit is warmed up on the first picture until its times are stable. Pictures are taken one
    after the other and may come from a generator; decoding them is not in the times.

    Args:
        detector: an opened bundle.
        pictures: at least one, (h, w, 3) uint8 BGR.
        progress: called after every picture.
    """
    exits = range(len(detector.manifest.ways))
    times: list[list[float]] = [[] for _ in exits]
    steps: list[list[Mapping[str, float]]] = [[] for _ in exits]
    names = [str(index) for index in exits]
    for number, picture in enumerate(pictures):
        if not number:
            for index in exits:
                _warm_up(detector, index, picture)
        for name in round_order(names, number):
            spent_ms, found = _time_once(detector, int(name), picture)
            times[int(name)].append(spent_ms)
            steps[int(name)].append(found.timings_ms)
        progress()
    return ExitTimes(
        tuple(tuple(samples) for samples in times), tuple(mean_steps(samples) for samples in steps)
    )


def _warm_up(detector: Detector, exit_index: int, picture: ImageArray) -> None:
    warm_up(lambda: _time_once(detector, exit_index, picture)[0])


def _time_once(
    detector: Detector, exit_index: int, picture: ImageArray
) -> tuple[float, Detections]:
    policy = LeaveAt(exit_index)
    start = time.perf_counter_ns()
    found = detector(picture, policy=policy)
    return (time.perf_counter_ns() - start) / NS_PER_MS, found


def mean_steps(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean milliseconds of each step, of runs that all had the same steps."""
    return {name: float(np.mean([sample[name] for sample in samples])) for name in samples[0]}


def stages_of_last_exit(manifest: Manifest) -> frozenset[str]:
    """The stages without which the last exit finds nothing: its own and what they read, in turn.

    This is what would run if the last exit's detector stood alone, without routers and without
    the heads of earlier exits.
    """
    return frozenset(stages_of(alone(manifest, len(manifest.ways) - 1)))


def last_exit_alone_ms(times: ExitTimes, manifest: Manifest) -> float:
    """Mean milliseconds of the last exit's detector alone, from the steps of the last exit.

    Pictures that only earlier exits' own stages read would not be prepared: where the last exit
    needs none of those, their preparation, which is all that the exit before it prepared, is
    taken off.
    """
    needed = stages_of_last_exit(manifest)
    last = times.step_ms[-1]
    alone = sum(last[name] for name in needed) + last[PREPARE] + last[POSTPROCESS]
    way = manifest.ways[-1]
    earlier = set(manifest.route.stages) - {way.body, way.head}
    if _images_read(manifest, earlier) & _images_read(manifest, needed):
        return alone
    return alone - times.step_ms[-2][PREPARE]


def _images_read(manifest: Manifest, stages: Iterable[str]) -> frozenset[str]:
    read = {spec.name for stage in stages for spec in manifest.stages[stage].inputs}
    return frozenset(read & set(manifest.image_inputs))
