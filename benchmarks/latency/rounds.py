"""All scenarios in turns, round by round, so that what drifts is fair to all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dyninfer.benchmarks.latency.pictures import BenchPictures
from dyninfer.benchmarks.latency.record import Yardstick
from dyninfer.benchmarks.latency.request import (
    LONG_PERIOD,
    Effort,
    calls_by_round,
    planned_calls,
    warm_up,
)
from dyninfer.benchmarks.latency.scenario_record import Scenario, WarmUp
from dyninfer.benchmarks.latency.scenarios import ForcedHard, ForcedWay, calls_in_period
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice, frozen_garbage, run_slice
from dyninfer.evaluation.interleaved import round_order
from dyninfer.images.pictures import PathOrImage
from dyninfer.routing.policy import Policy
from dyninfer.runtime.detector import Detector

SIDE = 48
"""So small that no BLAS shares a product among threads, which would spin on into what follows."""
PRODUCTS = 1000
REPEATS = 5
WHAT = f"NumPy float32, one thread: {PRODUCTS} matrix products {SIDE}x{SIDE}, and their sum"


@dataclass
class Track:
    """A scenario and what was measured of it so far.

    Attributes:
        policy: forces its share.
        settling: does the same for calls that do not count, which must not shift the sequence of
            those that do.
        period: calls in which the share is exact.
        taken: calls so far; tells which pictures are next.
        warm_up, plan: how that went, and the calls of each round; set once it has.
    """

    scenario: Scenario
    policy: Policy
    settling: Policy
    period: int = 1
    taken: int = 0
    warm_up: WarmUp = field(init=False)
    plan: tuple[int, ...] = field(init=False)
    slices: list[Slice] = field(default_factory=list)


class RoundsInterrupted(KeyboardInterrupt):
    """Ctrl-C once something was measured; it holds what :func:`measure_rounds` would have given."""

    def __init__(self, tracks: list[Track], yardstick: Yardstick, number: int) -> None:
        super().__init__("interrupted")
        self.tracks = tracks
        self.yardstick = yardstick
        self.number = number


def measure_rounds(
    detector: Detector,
    scenarios: Sequence[Scenario],
    pictures: BenchPictures,
    effort: Effort,
    on_step: Callable[[str], object] = lambda _what: None,
    on_slice: Callable[[Scenario, Callable[[], Slice]], Slice] = lambda _scenario, run: run(),
) -> tuple[list[Track], Yardstick]:
    """Warm every scenario up, then run a slice of each in every round.

    The detector has room for the largest batch. Pictures take turns, in every scenario from the
    first on. ``on_step`` is called before each step with what it is; there are (rounds + 1) for a
    scenario. ``on_slice`` runs a slice that counts, for reading an energy meter around it.

    Raises:
        RoundsInterrupted: somebody pressed Ctrl-C in some round, and some slice had been run.
    """
    own = detector.active_policy
    tracks = {s.name: _track(detector, s, own) for s in scenarios}
    yardstick = YardstickTimer()
    yardstick_ms: list[float] = []
    with frozen_garbage():
        for name, track in tracks.items():
            on_step(f"warming up: {name}")
            _warm_up(detector, track, pictures, effort)
        for number in range(effort.rounds):
            try:
                yardstick_ms.append(yardstick.median_ms())
                for name in round_order(list(tracks), number):
                    on_step(f"round {number + 1}/{effort.rounds}: {name}")
                    track, calls = tracks[name], tracks[name].plan[number]
                    if calls:
                        _settle(detector, track, pictures)
                        run = partial(_run, detector, track, pictures, calls)
                        track.slices.append(on_slice(track.scenario, run))
            except KeyboardInterrupt:
                begun = [track for track in tracks.values() if track.slices]
                if not begun:
                    raise
                raise RoundsInterrupted(begun, _yardstick(yardstick_ms), number) from None
    return list(tracks.values()), _yardstick(yardstick_ms)


def _yardstick(rounds_ms: Sequence[float]) -> Yardstick:
    return Yardstick(WHAT, tuple(rounds_ms), statistics.median(rounds_ms))


def _track(detector: Detector, scenario: Scenario, own: Policy) -> Track:
    share, batch, manifest = scenario.hard_fraction, scenario.batch, detector.manifest
    if scenario.as_routed:
        return Track(scenario, own, own)
    if scenario.one_way:
        end = manifest.way_names[manifest.ways_by_cost[-1 if share else 0]]
        fixed = ForcedWay(manifest.way_names.index(scenario.way or end))
        return Track(scenario, fixed, fixed)
    assert share is not None  # it is not as routed either
    forced, settling = ForcedHard(share, batch), ForcedHard(share, batch)
    return Track(scenario, forced, settling, calls_in_period(share, batch))


def _warm_up(detector: Detector, track: Track, pictures: BenchPictures, effort: Effort) -> None:
    """At a fixed rate too the calls follow each other, to learn how many fit in."""
    scenario = track.scenario
    period = track.period if track.period <= LONG_PERIOD else 1
    track.warm_up, call_ms = warm_up(
        lambda calls: _run(detector, track, pictures, calls, at_rate=False),
        period * scenario.concurrency,
        effort.warm_up_seconds,
    )
    total = planned_calls(scenario, call_ms, effort)
    track.plan = calls_by_round(total, effort.rounds, track.period, scenario.concurrency)


def _settle(detector: Detector, track: Track, pictures: BenchPictures) -> None:
    """A call of each caller that does not count: the scenario before has filled the caches."""
    batch, callers = track.scenario.batch, track.scenario.concurrency
    if track.slices and min(call.wall_ms for call in track.slices[-1].calls) > MS_PER_S:
        return  # calls so long that what is in the caches at their start makes no difference
    chosen = [_batch(pictures, track.scenario, call * batch) for call in range(callers)]
    run_slice(partial(detector.answers, policy=track.settling), chosen, None, callers)


def _run(
    detector: Detector, track: Track, pictures: BenchPictures, calls: int, *, at_rate: bool = True
) -> Slice:
    scenario = track.scenario
    batches = [
        _batch(pictures, scenario, (track.taken + call) * scenario.batch) for call in range(calls)
    ]
    track.taken += calls
    rate = scenario.rate_per_s if at_rate else None
    detect = partial(detector.answers, policy=track.policy)
    return run_slice(detect, batches, rate, scenario.concurrency)


def _batch(pictures: BenchPictures, scenario: Scenario, first: int) -> list[PathOrImage]:
    source: Sequence[PathOrImage] = pictures.paths if scenario.decode else pictures.arrays
    return [source[(first + index) % len(source)] for index in range(scenario.batch)]


class YardstickTimer:
    """Times a fixed computation: how fast the machine is now, whatever the detector does.

    Make it once, so that its arrays are there.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left = rng.random((PRODUCTS, SIDE, SIDE), np.float32)
        self._right = rng.random((PRODUCTS, SIDE, SIDE), np.float32)
        self._product = np.empty_like(self._left)

    def median_ms(self) -> float:
        """Median of a few, after one that does not count."""
        times_ms = []
        for _ in range(1 + REPEATS):
            start = time.perf_counter_ns()
            np.matmul(self._left, self._right, out=self._product)
            float(self._product.sum())
            times_ms.append((time.perf_counter_ns() - start) / 1e6)
        return statistics.median(times_ms[1:])
