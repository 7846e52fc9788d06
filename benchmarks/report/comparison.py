"""A comparison of two records: as a table, in words, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

from dyninfer.benchmarks.latency.comparison import RecordComparison, ScenarioChange, Verdict
from dyninfer.benchmarks.latency.scenario_record import Estimate
from dyninfer.benchmarks.report.figures import number
from dyninfer.benchmarks.report.table import Table, column, make_table
from dyninfer.plain_text import counted


def changes_table(comparison: RecordComparison) -> Table:
    """Latencies of an old and a new record, and what can be said of their ratio."""
    found = [change.latency for change in comparison.scenarios]
    intervals = (f"{change.ratio.low:.2f} to {change.ratio.high:.2f}" for change in found)
    return make_table(
        "p50 of a call in a round, median over the rounds, ms",
        column("scenario", (change.scenario.name for change in comparison.scenarios), words=True),
        column("old", (number(change.old) for change in found)),
        column("new", (number(change.new) for change in found)),
        column("new/old", (f"{change.ratio.value:.3f}" for change in found)),
        column(f"{comparison.confidence:.0%}", intervals),
        column("verdict", (change.verdict.value for change in found)),
    )


def as_data(comparison: RecordComparison) -> dict[str, Any]:
    """The comparison as plain data for a script, with what follows from it at the top.

    ``outcome`` is one of :class:`Outcome`, ``verdict`` the last of :func:`lines_of`, ``slower`` the
    names of the scenarios that became slower, ``machine_changed`` whether the yardstick changed.
    """
    return {
        "outcome": outcome_of(comparison).value,
        "verdict": verdict_of(comparison),
        "slower": [change.scenario.name for change in comparison.regressions],
        "machine_changed": comparison.machine_changed,
        **asdict(comparison),
    }


def _interval(ratio: Estimate) -> str:
    return f"{ratio.low:.3f} to {ratio.high:.3f}"


def lines_of(comparison: RecordComparison) -> list[str]:
    """What to know beside the table, the verdict last."""
    old_mib, new_mib = comparison.peak_memory_mib
    return [
        *(f"differs: {difference}" for difference in comparison.differences),
        *(f"only in the old record: {s.name}" for s in comparison.only_old),
        *(f"only in the new record: {s.name}" for s in comparison.only_new),
        *_throughput_lines(comparison),
        f"peak memory: {old_mib:.0f} -> {new_mib:.0f} MiB ({_share(new_mib / old_mib)})",
        *(
            f"time over {b.baseline}, {b.side}: {b.old:.3f} -> {b.new:.3f}"
            for b in comparison.baselines
        ),
        _yardstick_line(comparison),
        *_adjusted_lines(comparison),
        *(f"not steady: {reason}" for reason in comparison.unsteady),
        verdict_of(comparison),
    ]


def _throughput_lines(comparison: RecordComparison) -> list[str]:
    """Where throughput says something else than the median latency."""
    lines = []
    for change in comparison.scenarios:
        found = change.throughput
        if found is not None and found.verdict is not change.latency.verdict:
            lines.append(
                f"{change.scenario.name}: {found.old:.4g} -> {found.new:.4g} images/s "
                f"({_share(found.ratio.value)}, {_interval(found.ratio)}): {found.verdict.value}"
            )
    return lines


def _share(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"


def _yardstick_line(comparison: RecordComparison) -> str:
    found = comparison.yardstick
    if found is None:
        return "yardstick: the records use different ones, so a slower machine would go unnoticed"
    line = f"yardstick: {found.ratio.value:.3f} ({_interval(found.ratio)})"
    if not comparison.machine_changed:
        return line
    return (
        f"{line}: the machine itself was {abs(found.ratio.value - 1) * 100:.0f} % "
        f"{found.verdict.value}; compare on the same machine in the same state"
    )


def _adjusted_lines(comparison: RecordComparison) -> list[str]:
    """What is left of a changed scenario where the machine changed too."""
    if not comparison.machine_changed:
        return []
    return [
        f"{change.scenario.name}: {change.latency.ratio.value:.3f}, and over the yardstick's "
        f"{change.adjusted:.3f}"
        for change in comparison.scenarios
        if change.adjusted is not None and change.verdict in (Verdict.SLOWER, Verdict.FASTER)
    ]


class Outcome(str, Enum):
    """What a comparison comes to as a whole."""

    NOT_SLOWER = "not slower"
    SLOWER = "slower"
    UNCLEAR = "unclear"


def outcome_of(comparison: RecordComparison) -> Outcome:
    """Slower only where that is no slower machine's doing, not slower only where that was shown."""
    if comparison.regressions:
        return Outcome.UNCLEAR if _machine_is(comparison, Verdict.SLOWER) else Outcome.SLOWER
    unclear = _machine_is(comparison, Verdict.FASTER)  # which may hide that the code is slower
    unclear |= any(change.verdict is Verdict.UNCLEAR for change in comparison.scenarios)
    return Outcome.UNCLEAR if unclear or _too_few(comparison) else Outcome.NOT_SLOWER


def _too_few(comparison: RecordComparison) -> bool:
    """Whether there are too few rounds to tell two records apart that are not the same."""
    found = [f for c in comparison.scenarios for f in (c.latency, c.throughput) if f is not None]
    return comparison.too_few_rounds and any(change.ratio.value != 1 for change in found)


def _machine_is(comparison: RecordComparison, verdict: Verdict) -> bool:
    found = comparison.yardstick
    return found is not None and found.verdict is verdict


def verdict_of(comparison: RecordComparison) -> str:
    """The verdict in one line."""
    slower, tested = comparison.regressions, len(comparison.scenarios)
    if _too_few(comparison) and not slower:
        needed = comparison.rounds_needed
        remedy = "compare fewer scenarios"
        if needed is not None:
            rounds = f"--rounds {needed} or more, and --min-calls too where calls are slow"
            remedy = f"measure both with {rounds}"
        few = f"too few rounds to tell {counted(tested, 'scenario')} apart"
        return f"no verdict: {few}; {remedy}"
    bar = f"by more than {comparison.tolerance * 100:g} %"
    counts = {v: sum(s.verdict is v for s in comparison.scenarios) for v in Verdict}
    found = [f"{counts[v]} {v.value}" for v in Verdict if counts[v] and v is not Verdict.SLOWER]
    others = f" ({', '.join(found)})" if found else ""
    if not slower and counts[Verdict.UNCLEAR]:
        return (
            f"unclear: no scenario of {tested} is certainly slower {bar}{others}, and more rounds "
            "would tell"
        )
    if not slower:
        doubt = "; but the machine was faster, so this is no verdict on the code"
        faster = _machine_is(comparison, Verdict.FASTER)
        return f"no scenario of {tested} is slower {bar}{others}{doubt * faster}"
    worst = max(slower, key=_worst)
    text = (
        f"{len(slower)} of {counted(tested, 'scenario')} slower {bar}{others}; worst: "
        f"{worst.scenario.name}, {_share(_worst(worst))}"
    )
    return f"{text}{_doubt(comparison)}"


def _doubt(comparison: RecordComparison) -> str:
    """Whether a regression may be the machine's."""
    if _machine_is(comparison, Verdict.SLOWER):
        return "; but the machine was slower as well, so this is no verdict on the code"
    if comparison.unsteady:
        return "; but the machine was not steady: measure both again while it does nothing else"
    return ""


def _worst(change: ScenarioChange) -> float:
    """The larger of both slow-downs, of the figures that are slower."""
    latency, throughput = change.latency, change.throughput
    slow = [latency.ratio.value] if latency.verdict is Verdict.SLOWER else []
    if throughput is not None and throughput.verdict is Verdict.SLOWER:
        slow.append(1 / throughput.ratio.value)
    return max(slow)
