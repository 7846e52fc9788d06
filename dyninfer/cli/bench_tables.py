"""A record of ``dyninfer bench`` as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from dyninfer.cli.bench_closing import ABSENT, baseline_table, closing, machine_lines
from dyninfer.cli.common import stdout

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.record import BenchRecord
    from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario, ScenarioResult

BAR = 16  # columns of a share of 1


def print_record(record: BenchRecord) -> None:
    """Headline, latency by scenario, spans, baselines, model, and what is missing."""
    for line in headline(record):
        stdout.print(escape(line), soft_wrap=True)
    stdout.print(latency_table(record.scenarios))
    stdout.print(escape(footnote(record.scenarios)), soft_wrap=True)
    shown = ends_at_batch_1(record.scenarios)
    if shown:
        stdout.print(span_table(shown, [stage.name for stage in record.measured.stages]))
    mixed = mixture_at_batch_1(record.scenarios)
    if mixed is not None:
        stdout.print(exit_table(mixed))
    stdout.print(machine_lines(record), soft_wrap=True)
    if record.baselines is not None:
        stdout.print(baseline_table(record.baselines))
    for line in closing(record):
        stdout.print(escape(line), soft_wrap=True)


def headline(record: BenchRecord) -> list[str]:
    """What was measured, on what, with what."""
    measured, machine = record.measured, record.machine
    sizes = ", ".join(f"{name} {size}" for name, size in measured.image_inputs.items())
    load = machine.load_average_1min
    load_words = "unknown" if load is None else f"{load:g}"
    kinds = sorted({stage.precision for stage in measured.stages})
    by_policy = any(result.scenario.as_routed for result in record.scenarios)
    routed = f"; as routed: {measured.policy}" if by_policy else ""
    return [
        f"{measured.bundle}: {measured.family}, {measured.exits} exit"
        f"{'' if measured.exits == 1 else 's'}, {sizes} (height x width), {', '.join(kinds)}",
        f"{measured.backend} {measured.backend_version} ({measured.provider}) on "
        f"{measured.device}; {machine.system}, load {load_words}",
        f"{record.pictures.in_words}{routed}",
        f"{record.started_utc}, {record.seconds:.0f} s; clock of the engines: {record.clock}",
    ]


def significant(value: float) -> str:
    """Three significant digits, or a whole number: 0.123, 1.23, 12.3, 123, 1234."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _estimate(estimate: Estimate | None) -> str:
    return ABSENT if estimate is None else significant(estimate.value)


def _spread(estimate: Estimate) -> str:
    """How far the interval reaches, to its farther end; absent where there is none."""
    if not estimate.has_interval:
        return ABSENT
    reach = max(estimate.high - estimate.value, estimate.value - estimate.low)
    relative = reach / estimate.value
    return ">100%" if relative > 1 else f"{relative:.0%}"


def _hard(scenario: Scenario) -> str:
    share = scenario.hard_fraction
    if scenario.way:
        return scenario.way
    return "as routed" if share is None else f"{100 * share:.4g}%"


def _hard_of(result: ScenarioResult) -> str:
    """The share that it got, where that is not the one that was asked for."""
    achieved = result.achieved_share
    return _hard(result.scenario) if achieved is None else f"{100 * achieved:.2g}%"


def how_run(scenario: Scenario) -> str:
    """What is unusual about it: callers, rate, decoding."""
    parts = []
    if scenario.concurrency > 1:
        parts.append(f"{scenario.concurrency} callers")
    if scenario.rate_per_s is not None:
        parts.append(f"{scenario.rate_per_s:g}/s")
    if scenario.decode:
        parts.append("decode")
    return " ".join(parts)


def add_scenario_columns(table: Table, unusual: bool) -> None:
    """Columns for :func:`scenario_cells`."""
    table.add_column("batch", justify="right", no_wrap=True)
    table.add_column("hard", justify="right", no_wrap=True)
    if unusual:
        table.add_column("how")


def scenario_table(title: str) -> Table:
    """A table narrow enough for a row of a scenario that is unusual in several ways."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def scenario_cells(scenario: Scenario, unusual: bool, achieved: float | None = None) -> list[str]:
    """Batch, hard fraction and, if any scenario of the table is ``unusual``, how it is run.

    ``achieved`` is the share of hard images that it got, where another was asked for.
    """
    how = [escape(how_run(scenario))] if unusual else []
    hard = _hard(scenario)
    if achieved is not None:
        hard = f"{100 * achieved:.2g}%, not {hard}"
    return [str(scenario.batch), hard, *how]


def latency_table(results: Sequence[ScenarioResult]) -> Table:
    """One row for each scenario."""
    unusual = any(how_run(result.scenario) for result in results)
    table = scenario_table("milliseconds of a call")
    add_scenario_columns(table, unusual)
    for column in ("p50", "±", "p90", "p99", "p99.9", "mean", "img/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        latency = result.latency
        table.add_row(
            *scenario_cells(result.scenario, unusual, result.achieved_share),
            _estimate(latency.p50_ms),
            _spread(latency.p50_ms),
            _estimate(latency.p90_ms),
            _estimate(latency.p99_ms),
            _estimate(latency.p999_ms),
            _estimate(latency.mean_ms),
            significant(result.images_per_s.value),
        )
    return table


def footnote(results: Sequence[ScenarioResult]) -> str:
    """How many calls there are, and what would take more."""
    from dyninfer.benchmarks.latency.statistics import calls_needed

    counts = [result.latency.count for result in results]
    fewest, most = min(counts), max(counts)
    calls = f"{most} call{'' if most == 1 else 's'} each"
    if fewest < most:
        calls = f"{fewest} to {calls}"
    needs = f"{calls_needed(0.99)} calls for p99, {calls_needed(0.999)} for p99.9"
    return (
        f"{calls}; ± is the half of the 95 % interval of p50 "
        f"that reaches farther; it takes {needs} (more with --seconds)"
    )


def ends_at_batch_1(results: Sequence[ScenarioResult]) -> list[ScenarioResult]:
    """The easiest and the hardest of the plain scenarios with batch 1."""
    plain = [
        result
        for result in results
        if result.scenario.batch == 1
        and result.scenario.hard_fraction is not None
        and not how_run(result.scenario)
    ]
    plain.sort(key=lambda result: result.hard_fraction)
    return plain if len(plain) < 2 else [plain[0], plain[-1]]


def span_table(shown: Sequence[ScenarioResult], stages: Sequence[str]) -> Table:
    """Milliseconds of every step, and its share as a bar."""
    from dyninfer.benchmarks.latency.spans import in_order

    title = "milliseconds of the steps of a call, batch 1"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("step")
    for result in shown:
        table.add_column(f"{_hard_of(result)} hard", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, width=BAR)
    totals = [sum(s.ms_per_image.value for s in result.spans) for result in shown]
    by_name = [{s.name: s.ms_per_image.value for s in result.spans} for result in shown]
    for name in in_order({name for spans in by_name for name in spans}, stages):
        cells = []
        for spans, total in zip(by_name, totals, strict=True):
            spent = spans.get(name)
            cells += [ABSENT if spent is None else significant(spent), _bar(spent, total)]
        table.add_row(escape(name), *cells)
    table.add_row("sum", *(text for total in totals for text in (significant(total), "")))
    return table


def _bar(spent: float | None, total: float) -> str:
    if not spent or not total:
        return ""
    return "█" * round(BAR * spent / total) or "▏"


def mixture_at_batch_1(results: Sequence[ScenarioResult]) -> ScenarioResult | None:
    """A plain scenario with batch 1 whose images left at several exits, best as routed."""
    mixed = [
        result
        for result in results
        if result.scenario.batch == 1
        and not how_run(result.scenario)
        and sum(exit_.latency is not None for exit_ in result.exits) > 1
    ]
    mixed.sort(key=lambda result: result.scenario.hard_fraction is not None)
    return mixed[0] if mixed else None


def exit_table(mixed: ScenarioResult) -> Table:
    """Calls by the exit their image left at."""
    how = _hard_of(mixed) + (" hard" if mixed.scenario.hard_fraction is not None else "")
    title = f"milliseconds by exit, batch 1, {how}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    for column in ("exit", "images", "p50", "±", "p90", "p99", "mean"):
        table.add_column(column, justify="right", no_wrap=True)
    for exit_ in mixed.exits:
        cells = [ABSENT] * 5
        if (latency := exit_.latency) is not None:
            cells = [
                _estimate(latency.p50_ms),
                _spread(latency.p50_ms),
                _estimate(latency.p90_ms),
                _estimate(latency.p99_ms),
                _estimate(latency.mean_ms),
            ]
        table.add_row(str(exit_.exit_index), f"{exit_.share:.1%}", *cells)
    return table
