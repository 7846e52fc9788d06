"""What should make a reader doubt a record, one line each."""

from __future__ import annotations

from dyninfer.benchmarks.bench.record import BenchRecord
from dyninfer.benchmarks.machine import warnings_of

LATE = 0.05
"""A share of late calls from which on a schedule was not kept."""
_YARDSTICK_SPREAD = 0.15


def doubts_of(record: BenchRecord) -> list[str]:
    """Of the machine, the warm-up, the schedules and the baselines."""
    return [
        *warnings_of(record.machine, record.log),
        *_yardstick(record),
        *_unstable(record),
        *_late(record),
        *_unavailable(record),
    ]


def _yardstick(record: BenchRecord) -> list[str]:
    rounds = record.yardstick.rounds_ms
    spread = max(rounds) / min(rounds) - 1
    if spread <= _YARDSTICK_SPREAD:
        return []
    return [
        f"the same computation took {min(rounds):.2f} to {max(rounds):.2f} ms from round to round: "
        "the machine's speed changed; trust intervals and ratios, not single figures"
    ]


def _unstable(record: BenchRecord) -> list[str]:
    names = [result.scenario.name for result in record.scenarios if not result.warm_up.stable]
    if not names:
        return []
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return [f"still changing when its warm-up had to end: {names[0]}{more}"]


def _late(record: BenchRecord) -> list[str]:
    late = [result for result in record.scenarios if (result.late_share or 0) > LATE]
    if not late:
        return []
    worst = max(late, key=lambda result: result.late_share or 0)
    more = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
    return [
        f"{worst.late_share:.0%} of the calls started late at {worst.scenario.name}{more}: their "
        "latencies hold the waiting, which grows for as long as calls come faster than they are run"
    ]


def _unavailable(record: BenchRecord) -> list[str]:
    if record.baselines is None:
        return []
    return [
        f"no baseline {name}: {reason}" for name, reason in record.baselines.unavailable.items()
    ]
