"""Baselines, the latency model and two records beside each other as tables."""

from __future__ import annotations

from collections.abc import Mapping

from dyninfer.benchmarks.latency.comparison import RecordComparison
from dyninfer.benchmarks.latency.record import Baselines, ContenderTimes, LatencyModel
from dyninfer.benchmarks.report.figures import ABSENT, interval, number
from dyninfer.benchmarks.report.table import Cell, Medium, Table, column, make_table
from dyninfer.evaluation.interleaved import RatioEstimate


def ratios_table(baselines: Baselines) -> Table:
    """Time of dyninfer over that of each baseline, one column for each side."""
    ratios = baselines.ratios
    names = list(dict.fromkeys(entry.baseline for entry in ratios))
    found = {(entry.baseline, entry.side): entry.ratio for entry in ratios}
    differences = (_difference(baselines.differences.get(name)) for name in names)
    return make_table(
        f"Time of dyninfer over the baseline's, {baselines.rounds:,} rounds",
        column("against", names, words=True),
        *(
            column(f"{side} images", (_ratio(found.get((name, side))) for name in names))
            for side in dict.fromkeys(entry.side for entry in ratios)
        ),
        column("difference of results", differences, media=Medium.WIDE),
    )


def _ratio(ratio: RatioEstimate | None) -> Cell:
    return Cell(ABSENT) if ratio is None else Cell(number(ratio.median), interval(ratio))


def _difference(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0e}" if value else "none"


def contenders_table(baselines: Baselines) -> Table:
    """Times of dyninfer and every baseline, one column for each side."""
    what = {entry.name: (entry.what, baselines.notes.get(entry.name)) for entry in baselines.times}
    names = (Cell(name, "; ".join(filter(None, said))) for name, said in what.items())
    sides = dict.fromkeys(entry.side for entry in baselines.times)
    found = {(entry.name, entry.side): entry for entry in baselines.times}
    by_side = {side: [found.get((name, side)) for name in what] for side in sides}
    return make_table(
        f"Times over {baselines.rounds:,} rounds, with quartiles",
        column("contender", names, words=True),
        *(column(f"{side}, median ms", map(_median, times)) for side, times in by_side.items()),
        *(column(f"{side}, idle CPU ms", map(_idle, times)) for side, times in by_side.items()),
        media=Medium.PAGE,
    )


def _median(entry: ContenderTimes | None) -> Cell:
    if entry is None:
        return Cell(ABSENT)
    return Cell(number(entry.median_ms), f"{number(entry.p25_ms)} to {number(entry.p75_ms)}")


def _idle(entry: ContenderTimes | None) -> str:
    return ABSENT if entry is None else number(entry.idle_cpu_ms)


def memory_table(baselines: Baselines) -> Table:
    """Memory of a fresh process for each contender."""
    memory = baselines.memory
    return make_table(
        "Memory of a fresh process",
        column("contender", (entry.name for entry in memory), words=True),
        column("load ms", (number(entry.load_ms) for entry in memory)),
        column("after loading MiB", (number(entry.loaded_mib) for entry in memory)),
        column("peak MiB", (number(entry.peak_mib) for entry in memory)),
    )


def reasons_table(title: str, first: str, reasons: Mapping[str, str]) -> Table:
    """What is absent, and why; a terminal is told of it beside the tables."""
    return make_table(
        title,
        column(first, reasons, words=True),
        column("why", reasons.values(), words=True),
        media=Medium.WIDE,
    )


def steps_table(model: LatencyModel) -> Table:
    """What each step costs by the latency model."""
    steps = model.steps
    return make_table(
        "Cost of each step by the model",
        column("step", (step.name for step in steps), words=True),
        column("images", (step.runs_for.value for step in steps), words=True),
        column("ms per call", (number(step.fixed_ms) for step in steps)),
        column("and per image, ms", (number(step.per_image_ms) for step in steps)),
        media=Medium.PAGE,
    )


def checks_table(model: LatencyModel) -> Table:
    """The model's prediction of every scenario."""
    checks = model.checks
    used = ("held out" if check.held_out else "fitted on" for check in checks)
    return make_table(
        "Measured and predicted, per image",
        column("scenario", (check.scenario.name for check in checks), words=True),
        column("measured ms", (number(check.measured_ms) for check in checks)),
        column("predicted ms", (number(check.predicted_ms) for check in checks)),
        column("error", (_signed_percent(check.error) for check in checks)),
        column("used", used),
        media=Medium.PAGE,
    )


def _signed_percent(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f} %" if rounded else "0.0 %"


def changes_table(comparison: RecordComparison) -> Table:
    """Median latencies of an old and a new record, and what can be said of their ratio."""
    found = [change.latency for change in comparison.scenarios]
    intervals = (f"{change.ratio.low:.2f} to {change.ratio.high:.2f}" for change in found)
    return make_table(
        "Median milliseconds of a call",
        column("scenario", (change.scenario.name for change in comparison.scenarios), words=True),
        column("old", (number(change.old) for change in found)),
        column("new", (number(change.new) for change in found)),
        column("new/old", (f"{change.ratio.value:.3f}" for change in found)),
        column(f"{comparison.confidence:.0%}", intervals),
        column("verdict", (change.verdict.value for change in comparison.scenarios)),
    )
