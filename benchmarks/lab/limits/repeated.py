"""Timing of calls that are too short to be timed one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from dyninfer.evaluation.interleaved import Run, run_rounds

_LARGEST_RETURNED = 31 << 20  # bytes; the C library never hands smaller blocks back from then on


def repeated(call: Callable[[], object], times: int = 1) -> Run:
    """A run that makes a call ``times`` times and returns the milliseconds of one."""

    def run() -> float:
        start = time.perf_counter_ns()
        for _ in range(times):
            call()
        return (time.perf_counter_ns() - start) / times / 1e6

    return run


def warm_rounds(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run in every round, in turns, after one of each that does not count."""
    for run in runs.values():
        run()
    return run_rounds(runs, rounds)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, as it does in a process that has run for a while.

    In a young process glibc gives large blocks back to the system at once, and whoever allocates
    most is slowed most, by several times. Freeing one large block raises its limit for good.
    """
    np.ones(_LARGEST_RETURNED, np.uint8)
