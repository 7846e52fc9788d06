"""All scenarios in turns, round by round, so that what drifts is fair to all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from dyninfer.benchmarks.latency.forced import ForcedHard, ForcedWay, calls_in_period
from dyninfer.benchmarks.latency.pictures import BenchPictures
from dyninfer.benchmarks.latency.scenario_record import Scenario, WarmUp
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice, frozen_garbage, run_slice
from dyninfer.benchmarks.latency.statistics import LEAST_ROUNDS
from dyninfer.benchmarks.latency.warm import warm_up
from dyninfer.benchmarks.latency.yardstick import YardstickTimer
from dyninfer.evaluation.interleaved import round_order
from dyninfer.images.reading import PathOrImage
from dyninfer.routing.policy import Policy
from dyninfer.runtime.detector import Detector

LONG_PERIOD = 20
MOST_STRETCH = 2
"""So many times the calls that were asked for may be made for the sake of whole periods."""
CALLS_OF_A_CALLER = 3
"""At least so many in a round for each of several callers, so that they do run at once."""
CALLS_ON_SCHEDULE = 5
"""At least so many a round."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: of calls in each scenario.
        rounds: into which they are divided.
        min_calls: at least, however slow.
        warm_up_seconds: limit of the warm-up of each scenario.
        idle_seconds: to measure the power of the machine at rest, where it has a meter.
    """

    seconds: float = 5.0
    rounds: int = 10
    min_calls: int = 6
    warm_up_seconds: float = 3.0
    idle_seconds: float = 5.0


NOT_WARMED_UP = WarmUp(0, 0.0, False)


@dataclass
class Track:
    """A scenario and what was measured of it so far.

    Attributes:
        policy: forces its share.
        settling: does the same for calls that do not count, which must not shift the sequence of
            those that do.
        period: calls in which the share is exact.
        taken: calls so far; tells which pictures are next.
        plan: calls of each round, known once it was warmed up.
    """

    scenario: Scenario
    policy: Policy
    settling: Policy
    period: int = 1
    taken: int = 0
    warm_up: WarmUp = NOT_WARMED_UP
    plan: tuple[int, ...] = ()
    slices: list[Slice] = field(default_factory=list)


@dataclass(frozen=True)
class Measurements:
    """A track for each scenario, in their order; and the yardstick in each round."""

    tracks: tuple[Track, ...]
    yardstick_ms: tuple[float, ...]


def calls_by_round(total: int, rounds: int, period: int = 1, callers: int = 1) -> tuple[int, ...]:
    """How many calls each round makes: as even as whole periods allow, at least ``total``.

    With fewer periods than rounds some rounds make none, but at least :data:`LEAST_ROUNDS` make
    some. Where so many whole periods would take more than :data:`MOST_STRETCH` times the calls,
    and where a period is longer than :data:`LONG_PERIOD`, the ends of rounds cut periods. The
    share is exact over all rounds then, but for such a long period; that it differs from round to
    round makes intervals wider and not narrower.

    Several callers make :data:`CALLS_OF_A_CALLER` calls each in every round that makes any: a
    single call would be made by one of them alone. Where that takes more than
    :data:`MOST_STRETCH` times the calls, fewer rounds make some, down to one.
    """
    unit, units = _units(total, rounds, period)
    held = -(-CALLS_OF_A_CALLER * callers // unit) if callers > 1 else 1
    wanted = min(rounds, LEAST_ROUNDS)
    busy = min(rounds, units // held)
    if callers > 1 and busy < wanted:
        busy = max(busy, 1, min(wanted, MOST_STRETCH * total // (held * unit)))
        whole = period // unit if period <= LONG_PERIOD else 1
        units = -(-max(units, busy * held) // whole) * whole
    shares = [unit * (b - a) for a, b in pairwise(_edges(units, busy))]
    return tuple(shares[a] if a < b else 0 for a, b in pairwise(_edges(busy, rounds)))


def _units(total: int, rounds: int, period: int) -> tuple[int, int]:
    """Calls that stay in one round, and how many times so many there are."""
    wanted = min(rounds, LEAST_ROUNDS)
    unit = period if period <= LONG_PERIOD else 1
    units = -(-total // unit)
    if units >= wanted:
        return unit, units
    if wanted * unit <= max(MOST_STRETCH * total, wanted):
        return unit, wanted
    return 1, units * unit


def _edges(parts: int, among: int) -> list[int]:
    """Where ``among`` shares of ``parts`` things begin and end, as even as can be."""
    return [index * parts // among for index in range(among + 1)]


def planned_calls(scenario: Scenario, call_ms: float, effort: Effort) -> int:
    """Calls of a scenario, of which one takes ``call_ms`` with all callers at work.

    At least one for each of :data:`LEAST_ROUNDS` rounds. At a rate that the machine cannot keep,
    as many as it can make in the time. On a schedule a round holds several calls, so that a late
    one can delay the next.
    """
    least = max(effort.min_calls, min(effort.rounds, LEAST_ROUNDS))
    if scenario.rate_per_s is None:
        return max(least, round(effort.seconds * MS_PER_S / call_ms))
    apart_ms = max(call_ms, MS_PER_S / scenario.rate_per_s)
    least = max(least, CALLS_ON_SCHEDULE * effort.rounds)
    return max(least, round(effort.seconds * MS_PER_S / apart_ms))


def measure_rounds(
    detector: Detector,
    scenarios: Sequence[Scenario],
    pictures: BenchPictures,
    effort: Effort,
    on_step: Callable[[str], object] = lambda _what: None,
    on_slice: Callable[[Scenario, Callable[[], Slice]], Slice] = lambda _scenario, run: run(),
) -> Measurements:
    """Warm every scenario up, then run a slice of each in every round.

    The detector has room for the largest batch. Pictures take turns, in every scenario from the
    first on. ``on_step`` is called before each step with what it is; there are (rounds + 1) for a
    scenario. ``on_slice`` runs a slice that counts, for reading an energy meter around it.
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
            yardstick_ms.append(yardstick.median_ms())
            for name in round_order(list(tracks), number):
                on_step(f"round {number + 1}/{effort.rounds}: {name}")
                track, calls = tracks[name], tracks[name].plan[number]
                if calls:
                    _settle(detector, track, pictures)
                    run = partial(_run, detector, track, pictures, calls)
                    track.slices.append(on_slice(track.scenario, run))
    return Measurements(tuple(tracks.values()), tuple(yardstick_ms))


def _track(detector: Detector, scenario: Scenario, own: Policy) -> Track:
    share, batch, names = scenario.hard_fraction, scenario.batch, detector.manifest.way_names
    if scenario.as_routed:
        return Track(scenario, own, own)
    if scenario.one_way:
        fixed = ForcedWay(names.index(scenario.way or names[-1 if share else 0]))
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
