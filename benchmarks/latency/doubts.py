"""What should make a reader doubt a record, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.statistics import LEAST_ROUNDS
from dyninfer.benchmarks.latency.steadiness import MOST_SPREAD, yardstick_spread
from dyninfer.benchmarks.machine import warnings_of

LATE = 0.05
"""A share of late calls from which on a schedule was not kept."""


def doubts_of(record: BenchRecord) -> list[str]:
    """Doubts about machine, warm-up, rounds, shares, schedules and baselines."""
    return [
        *warnings_of(record.machine, record.log),
        *_yardstick(record),
        *_unstable(record),
        *_few_rounds(record),
        *_other_shares(record),
        *_late(record),
        *_unavailable(record),
    ]


def _yardstick(record: BenchRecord) -> list[str]:
    rounds = record.yardstick.rounds_ms
    if yardstick_spread(record) <= MOST_SPREAD:
        return []
    return [
        f"the same computation took {min(rounds):.2f} to {max(rounds):.2f} ms from round to round: "
        "the machine's speed changed; trust intervals and ratios, not single figures"
    ]


def _unstable(record: BenchRecord) -> list[str]:
    unstable = [result for result in record.scenarios if not result.warm_up.stable]
    if not unstable:
        return []
    return [f"still changing when its warm-up had to end: {_named(unstable)}"]


def _few_rounds(record: BenchRecord) -> list[str]:
    few = [r for r in record.scenarios if sum(map(bool, r.rounds_ms)) < LEAST_ROUNDS]
    if not few:
        return []
    return [
        f"measured in fewer than {LEAST_ROUNDS} rounds, so its intervals are too narrow or absent: "
        f"{_named(few)}; give --rounds {LEAST_ROUNDS} or more, "
        "and more --seconds where calls are slow"
    ]


def _other_shares(record: BenchRecord) -> list[str]:
    """Shares of hard images that too few calls did not reach."""
    off = [result for result in record.scenarios if result.achieved_share is not None]
    if not off:
        return []
    return [
        f"{off[0].hard_fraction:.2%} of the images were hard, since the calls were few, at "
        f"{_named(off)}; measure longer (--seconds)"
    ]


def _named(results: Sequence[ScenarioResult]) -> str:
    more = f" (and {len(results) - 1} more)" if len(results) > 1 else ""
    return f"{results[0].scenario.name}{more}"


def _late(record: BenchRecord) -> list[str]:
    late = [result for result in record.scenarios if (result.late_share or 0) > LATE]
    if not late:
        return []
    worst = max(late, key=lambda result: result.late_share or 0)
    ordered = [worst, *(result for result in late if result is not worst)]
    return [
        f"{worst.late_share:.0%} of the calls started late at {_named(ordered)}: their "
        "latencies hold the waiting, which grows for as long as calls come faster than they are run"
    ]


def _unavailable(record: BenchRecord) -> list[str]:
    if record.baselines is None:
        return []
    return [
        f"no baseline {name}: {reason}" for name, reason in record.baselines.unavailable.items()
    ]
