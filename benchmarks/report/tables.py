"""Parts of a record as tables of text, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dyninfer.benchmarks.latency.record import ThresholdPoint
from dyninfer.benchmarks.latency.scenario_record import (
    Distribution,
    Estimate,
    ScenarioResult,
    SpanKind,
)
from dyninfer.benchmarks.report.figures import (
    ABSENT,
    interval,
    number,
    percent,
    result_words,
)


@dataclass(frozen=True)
class Cell:
    """A value, and a detail of less weight such as its interval."""

    value: str
    detail: str = ""


Row = list[str | Cell]


@dataclass(frozen=True)
class Table:
    """Columns and rows of equal length; ``words`` columns hold text, the others figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1


def make_table(caption: str, columns: Sequence[str], rows: Iterable[Row], words: int = 1) -> Table:
    """A table of cells, of which those without a detail may be given as text."""
    cells = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
    )
    return Table(caption, tuple(columns), cells, words)


def without_empty_columns(table: Table) -> Table:
    """The table without columns in which every row has a dash."""
    kept = [
        index
        for index in range(len(table.columns))
        if any(row[index].value != ABSENT for row in table.rows)
    ]
    return Table(
        table.caption,
        tuple(table.columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in table.rows),
        table.words,
    )


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A figure with its interval; a dash for None."""
    if estimate is None:
        return Cell(ABSENT)
    return Cell(number(estimate.value), interval(estimate))


def _percentiles(latency: Distribution) -> list[Cell]:
    found = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms)
    return [*map(estimate_cell, found), Cell(number(latency.max_ms))]


def latency_table(results: Sequence[ScenarioResult]) -> Table:
    """Percentiles of every scenario; columns that nothing fills are left out."""
    columns = ("scenario", "calls", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "slowest ms")
    more = ("ms per image", "images/s", "late calls", "J per image")
    rows: list[Row] = [
        [
            result_words(result),
            f"{result.latency.count:,}",
            *_percentiles(result.latency),
            # at a fixed rate this would be the time between calls
            estimate_cell(result.ms_per_image if result.scenario.rate_per_s is None else None),
            number(result.images_per_s.value),
            percent(result.late_share, 1),
            number(result.joules_per_image),
        ]
        for result in results
    ]
    return without_empty_columns(make_table("Latency of a call", (*columns, *more), rows))


def exits_table(results: Sequence[ScenarioResult]) -> Table:
    """Latency by the exit at which all images of a call left, where several exits have calls."""
    columns = ("scenario", "exit", "images", "calls")
    percentiles = ("p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "slowest ms")
    rows: list[Row] = [
        [
            result_words(result),
            str(entry.exit_index),
            percent(entry.share),
            f"{entry.latency.count:,}",
            *_percentiles(entry.latency),
        ]
        for result in results
        for entry in result.exits
        if entry.latency is not None and sum(e.latency is not None for e in result.exits) > 1
    ]
    return without_empty_columns(make_table("Latency by exit", (*columns, *percentiles), rows))


def spans_table(result: ScenarioResult) -> Table:
    """Every step of one scenario."""
    total = sum(span.ms_per_image.value for span in result.spans) or 1
    rows: list[Row] = [
        [
            span.name,
            span.kind.value,
            estimate_cell(span.ms_per_image),
            percent(span.ms_per_image.value / total, 1),
            percent(span.share),
            number(span.ms_when_run),
        ]
        for span in result.spans
        if span.share
    ]
    columns = ("step", "kind", "ms per image", "of the time", "images", "ms when run")
    return make_table(result_words(result), columns, rows, words=2)


def kinds_table(results: Sequence[ScenarioResult]) -> Table:
    """Milliseconds per image by the kind of work, one row for each scenario."""
    found = {span.kind for result in results for span in result.spans if span.share}
    kinds = [kind for kind in SpanKind if kind in found]
    rows: list[Row] = []
    for result in results:
        spent = dict.fromkeys(kinds, 0.0)
        for span in result.spans:
            spent[span.kind] = spent.get(span.kind, 0.0) + span.ms_per_image.value
        figures = [number(spent[kind]) for kind in kinds]
        rows.append([result_words(result), *figures, number(sum(spent.values()))])
    columns = ("scenario", *(kind.value for kind in kinds), "together")
    return make_table("Mean ms per image by kind of work", columns, rows)


def curve_table(curve: Sequence[ThresholdPoint]) -> Table:
    """Every setting of the slider."""
    rows: list[Row] = [
        [
            f"{point.threshold:.4g}",
            percent(point.hard_fraction, 1),
            ABSENT if point.ap is None else f"{100 * point.ap:.1f}",
            ABSENT if point.ap50 is None else f"{100 * point.ap50:.1f}",
            percent(point.agreement, 1),
            number(point.mean_ms),
            number(1000 / point.mean_ms),
        ]
        for point in curve
    ]
    columns = ("threshold", "hard images", "AP", "AP50", "agreement", "ms per image", "images/s")
    return without_empty_columns(make_table("Every setting", columns, rows, words=0))
