"""What should make a reader doubt a record, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.statistics import LEAST_ROUNDS
from dyninfer.benchmarks.machine import warnings_of

LATE = 0.05
"""A share of late calls from which on a schedule was not kept."""
MOST_SPREAD = 0.1
MOST_OTHER_CORES = 0.25
OTHER_LOAD = "other_load_cores"


def doubts_of(record: BenchRecord) -> list[str]:
    """Doubts about machine, warm-up, rounds, shares, schedules and baselines."""
    baselines = record.baselines
    unavailable = {} if baselines is None else baselines.unavailable
    return [
        *warnings_of(record.machine, record.log),
        *_of_scenarios(record),
        *(f"no baseline {name}: {reason}" for name, reason in unavailable.items()),
    ]


def _of_scenarios(record: BenchRecord) -> Iterator[str]:
    results, rounds = record.scenarios, record.yardstick.rounds_ms
    if yardstick_spread(record) > MOST_SPREAD:
        yield (
            f"the same computation took {min(rounds):.2f} to {max(rounds):.2f} ms from round to "
            "round: the machine's speed changed; trust intervals and ratios, not single figures"
        )
    if unstable := [result for result in results if not result.warm_up.stable]:
        yield f"still changing when its warm-up had to end: {_named(unstable)}"
    if few := [r for r in results if len(r.rounds_ms) < LEAST_ROUNDS]:
        yield (
            f"measured in fewer than {LEAST_ROUNDS} rounds, so its intervals are too narrow or "
            f"absent: {_named(few)}; give --rounds {LEAST_ROUNDS} or more, "
            "and more --seconds where calls are slow"
        )
    if off := [result for result in results if result.achieved_share is not None]:
        yield (
            f"{off[0].hard_fraction:.2%} of the images were hard, since the calls were few, at "
            f"{_named(off)}; measure longer (--seconds)"
        )
    late = [result for result in results if (result.late_share or 0) > LATE]
    if late := sorted(late, key=lambda result: -(result.late_share or 0)):
        yield (
            f"{late[0].late_share:.0%} of the calls started late at {_named(late)}: their "
            "latencies include the wait, which grows for as long as calls come faster than they "
            "are run"
        )


def _named(results: Sequence[ScenarioResult]) -> str:
    more = f" (and {len(results) - 1} more)" if len(results) > 1 else ""
    return f"{results[0].scenario.name}{more}"


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
