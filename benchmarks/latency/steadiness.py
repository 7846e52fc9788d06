"""Whether the machine did something else while a record was taken."""

from __future__ import annotations

import numpy as np

from dyninfer.benchmarks.latency.record import BenchRecord

MOST_SPREAD = 0.1
MOST_OTHER_CORES = 0.25
OTHER_LOAD = "other_load_cores"


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
