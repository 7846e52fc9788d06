"""A fixed computation that has nothing to do with the detector: how fast the machine is now.

It tells whether the machine did something else while a record was taken.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from dyninfer.benchmarks.latency.record import BenchRecord, Yardstick

SIDE = 48
"""So small that no BLAS shares a product among threads, which would spin on into what follows."""
PRODUCTS = 1000
REPEATS = 5
MOST_SPREAD = 0.1
MOST_OTHER_CORES = 0.25
OTHER_LOAD = "other_load_cores"
WHAT = f"NumPy float32, one thread: {PRODUCTS} matrix products {SIDE}x{SIDE}, and their sum"


class YardstickTimer:
    """Times the computation; make it once, so that its arrays are there."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left = rng.random((PRODUCTS, SIDE, SIDE), np.float32)
        self._right = rng.random((PRODUCTS, SIDE, SIDE), np.float32)
        self._product = np.empty_like(self._left)

    def run_ms(self) -> float:
        """Milliseconds of one computation."""
        start = time.perf_counter_ns()
        np.matmul(self._left, self._right, out=self._product)
        float(self._product.sum())
        return (time.perf_counter_ns() - start) / 1e6

    def median_ms(self) -> float:
        """Median of a few, after one that does not count."""
        self.run_ms()
        return statistics.median(self.run_ms() for _ in range(REPEATS))


def yardstick_of(rounds_ms: Sequence[float]) -> Yardstick:
    """What the timer gave in every round."""
    return Yardstick(WHAT, tuple(rounds_ms), statistics.median(rounds_ms))


def yardstick_spread(record: BenchRecord) -> float:
    """Interquartile range of the yardstick over its median: within 0.02 on an idle machine."""
    low, middle, high = np.quantile(record.yardstick.rounds_ms, [0.25, 0.5, 0.75]).tolist()
    return float((high - low) / middle)


def unsteady_reasons(old: BenchRecord, new: BenchRecord) -> tuple[str, ...]:
    """Why times of either record may be those of other work; empty where nothing speaks for it."""
    reasons = []
    for which, record in (("old", old), ("new", new)):
        spread = yardstick_spread(record)
        if spread > MOST_SPREAD:
            reasons.append(f"the {which} record's yardstick varied by {spread * 100:.0f} %")
        other = record.log.readings.get(OTHER_LOAD)
        if other is not None and other.median > MOST_OTHER_CORES:
            reasons.append(f"other work took {other.median:.1f} cores during the {which} record")
    return tuple(reasons)
