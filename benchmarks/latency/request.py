"""What ``dyninfer bench`` is asked to measure, and how many calls that takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from dyninfer.benchmarks.latency.pictures import BenchPictures
from dyninfer.benchmarks.latency.scenario_record import Scenario, WarmUp
from dyninfer.benchmarks.latency.scenarios import Choices
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice
from dyninfer.benchmarks.latency.statistics import LEAST_ROUNDS
from dyninfer.evaluation.interleaved import is_stable
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Policy
from dyninfer.runtime.engine_choice import EngineChoice

LEAST_PAIRS = 8
MOST_PAIRS = 20
"""Rounds of a comparison with baselines."""
WINDOWS = 4
SPREAD = 0.04
WINDOW_MS = 60.0
MAX_SECONDS = 3.0
LONGEST_SECONDS = 60.0
"""However slow a call is, no further window is started from here on."""
LONG_PERIOD = 20
MOST_STRETCH = 2
"""So many times the calls that were asked for may be made for the sake of whole periods."""
CALLS_OF_A_CALLER = 3
"""Least number of calls in a round for each of several callers, so that they do run at once."""
CALLS_ON_SCHEDULE = 5
"""Least number of calls in a round."""

RunCalls = Callable[[int], Slice]
"""Makes a number of calls of the scenario."""


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


@dataclass(frozen=True)
class BaselineRequest:
    """What dyninfer is compared with.

    Attributes:
        names: of :mod:`dyninfer.benchmarks.baselines.setup`, or ONNX files; may be empty.
        sources: checkpoints for PyTorch.
        rounds: of the comparison, at most; slow calls get fewer.
        memory: also measure the memory of each, in fresh processes.
        reason: why there are none, where there are none.
    """

    names: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    rounds: int = MOST_PAIRS
    memory: bool = True
    reason: str = "not asked for; see --against"


@dataclass(frozen=True)
class BenchRequest:
    """What to measure; ``command`` as it was typed.

    ``policy`` is for the scenarios that route by themselves; None for the detector's own.
    """

    command: str
    bundle: Path
    pictures: BenchPictures
    engine: EngineChoice = field(default_factory=EngineChoice)
    choices: Choices = field(default_factory=Choices)
    effort: Effort = field(default_factory=Effort)
    policy: Policy | Goal | None = None
    baselines: BaselineRequest = field(default_factory=BaselineRequest)


def window_calls(first_ms: float, period: int, window_ms: float = WINDOW_MS) -> int:
    """Calls in a window: about ``window_ms``, whole periods of the hard share."""
    return math.ceil(max(1.0, window_ms / max(first_ms, 1e-3)) / period) * period


def warm_up(
    run: RunCalls,
    period: int = 1,
    max_seconds: float = MAX_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[WarmUp, float]:
    """Run windows of calls until their medians agree, or for ``max_seconds``.

    Calls so slow that few fit into that time make do with the windows there are, two at least. A
    trend slower than that is left to the measurement, which takes its rounds in turns. The
    hard share is exact in every ``period`` calls.

    Returns:
        What was run, and the median milliseconds from one call to the next.
    """
    start = clock()
    windows = [run(period), run(period)]
    last = windows[-1]  # the very first calls can be many times slower
    longest_ms = MS_PER_S * max_seconds / WINDOWS
    size = window_calls(last.wall_ms / len(last.calls), period, min(WINDOW_MS, longest_ms))
    calls = sum(len(each.calls) for each in windows)
    if size > period:
        windows = []  # too short to be compared
    while True:
        seconds = clock() - start
        medians = [statistics.median(call.wall_ms for call in each.calls) for each in windows]
        stable = is_stable(medians, WINDOWS, SPREAD)
        late = seconds >= max_seconds and (len(windows) > 1 or seconds >= LONGEST_SECONDS)
        if stable or late:
            break
        windows.append(run(size))
        calls += size
    compared = windows[-WINDOWS:]
    stable = stable or (len(compared) > 1 and is_stable(medians, len(compared), SPREAD))
    apart_ms = [each.wall_ms / len(each.calls) for each in compared] or [last.wall_ms / period]
    return WarmUp(calls, seconds, stable), statistics.median(apart_ms)


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
    """Calls that stay in one round, and how many times that number there is."""
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
