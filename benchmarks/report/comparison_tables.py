"""The baselines and the latency model as tables of text."""

from __future__ import annotations

from collections.abc import Mapping

from dyninfer.benchmarks.latency.baseline_record import Baselines, ContenderTimes
from dyninfer.benchmarks.latency.model_record import LatencyModel
from dyninfer.benchmarks.report.figures import ABSENT, interval, number, scenario_words
from dyninfer.benchmarks.report.tables import Cell, Row, Table, make_table, without_empty_columns
from dyninfer.evaluation.interleaved import RatioEstimate


def ratios_table(baselines: Baselines) -> Table:
    """Time of dyninfer over that of each baseline, one column for each side."""
    sides = tuple(dict.fromkeys(entry.side for entry in baselines.ratios))
    found = {(entry.baseline, entry.side): _ratio(entry.ratio) for entry in baselines.ratios}
    rows: list[Row] = [
        [
            name,
            *(found.get((name, side), Cell(ABSENT)) for side in sides),
            _difference(baselines.differences.get(name)),
        ]
        for name in dict.fromkeys(entry.baseline for entry in baselines.ratios)
    ]
    columns = ("against", *(f"{side} images" for side in sides), "difference of results")
    return without_empty_columns(make_table("Time of dyninfer over the baseline's", columns, rows))


def _difference(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0e}" if value else "none"


def contenders_table(baselines: Baselines) -> Table:
    """Times of dyninfer and every baseline, one column for each side."""
    sides = tuple(dict.fromkeys(entry.side for entry in baselines.times))
    found = {(entry.name, entry.side): entry for entry in baselines.times}
    rows: list[Row] = []
    for name, what in dict.fromkeys((entry.name, entry.what) for entry in baselines.times):
        entries = [found.get((name, side)) for side in sides]
        rows.append(
            [
                Cell(name, _joined(what, baselines.notes.get(name, ""))),
                *(_median(entry) for entry in entries),
                *(number(entry.idle_cpu_ms if entry else None) for entry in entries),
            ]
        )
    columns = (
        "contender",
        *(f"{side}, median ms" for side in sides),
        *(f"{side}, idle CPU ms" for side in sides),
    )
    return make_table(f"Times over {baselines.rounds:,} rounds, with quartiles", columns, rows)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _median(entry: ContenderTimes | None) -> Cell:
    if entry is None:
        return Cell(ABSENT)
    return Cell(number(entry.median_ms), f"{number(entry.p25_ms)} to {number(entry.p75_ms)}")


def memory_table(baselines: Baselines) -> Table:
    """Memory of a fresh process for each contender."""
    rows: list[Row] = [
        [entry.name, number(entry.load_ms), number(entry.loaded_mib), number(entry.peak_mib)]
        for entry in baselines.memory
    ]
    columns = ("contender", "load ms", "after loading MiB", "peak MiB")
    return make_table("Memory of a fresh process", columns, rows)


def reasons_table(caption: str, first: str, reasons: Mapping[str, str]) -> Table:
    """What is absent, and why."""
    return make_table(caption, (first, "why"), [list(entry) for entry in reasons.items()], words=2)


def steps_table(model: LatencyModel) -> Table:
    """What each step costs by the latency model."""
    rows: list[Row] = [
        [
            step.name,
            step.runs_for.value,
            number(step.fixed_ms),
            number(step.per_image_ms),
        ]
        for step in model.steps
    ]
    columns = ("step", "images", "ms per call", "and per image, ms")
    return without_empty_columns(
        make_table("Cost of each step by the model", columns, rows, words=2)
    )


def checks_table(model: LatencyModel) -> Table:
    """The model's prediction of every scenario."""
    rows: list[Row] = [
        [
            scenario_words(check.scenario),
            number(check.measured_ms),
            number(check.predicted_ms),
            _signed_percent(check.error),
            "held out" if check.held_out else "fitted on",
        ]
        for check in model.checks
    ]
    columns = ("scenario", "measured ms", "predicted ms", "error", "used")
    return make_table("Measured and predicted, per image", columns, rows)


def _signed_percent(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f} %" if rounded else "0.0 %"


def _ratio(estimate: RatioEstimate) -> Cell:
    return Cell(number(estimate.median), interval(estimate))
