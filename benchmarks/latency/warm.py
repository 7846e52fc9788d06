"""Running a scenario until its times no longer change, before any of them counts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from dyninfer.benchmarks.latency.scenario_record import WarmUp
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice
from dyninfer.evaluation.interleaved import is_stable

WINDOWS = 4
SPREAD = 0.04
WINDOW_MS = 60.0
MAX_SECONDS = 3.0
LONGEST_SECONDS = 60.0
"""However slow a call is, no further window is started from here on."""

RunCalls = Callable[[int], Slice]
"""Makes so many calls of the scenario."""


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
