from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from dyninfer.benchmarks.latency.record import BenchRecord, LatencyModel, ModelCheck
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult
from dyninfer.benchmarks.report import conditions, words
from dyninfer.benchmarks.report.table import (
    Cell,
    Table,
    column,
    make_table,
    print_page,
    print_table,
)
from dyninfer.benchmarks.report.tables import exits_table, latency_table
from dyninfer.benchmarks.report.view import page_of
from tests.benchmarks.report import report_records as records


def printed(table: Table) -> list[str]:
    out = io.StringIO()
    print_table(table, Console(width=80, file=out))
    return out.getvalue().splitlines()


def printed_record(record: BenchRecord) -> str:
    out = io.StringIO()
    print_page(page_of(record), Console(width=80, file=out))
    return out.getvalue()


@pytest.fixture
def first() -> ScenarioResult:
    return records.full_record().scenarios[0]


@pytest.mark.parametrize(
    "make",
    [
        records.full_record,
        records.minimal_record,
        records.three_exits_record,
        records.single_call_record,
        records.hostile_record,
    ],
)
def test_every_record_fits_in_80_columns_and_loses_no_figure(make) -> None:
    text = printed_record(make())
    lines = text.splitlines()
    tables = [line for n, line in enumerate(lines) if "─" in line or "─" in lines[n - 1]]
    assert tables
    assert all(len(line) <= 80 for line in tables)
    assert "…" not in text


def test_what_is_left_out_is_told_in_a_line_each() -> None:
    record = records.minimal_record()
    lines = printed_record(record).splitlines()
    told = [line for line in lines if line.startswith("not measured: ")]
    assert told == [f"not measured: {what} ({why})" for what, why in record.missing.items()]


def test_what_is_not_known_or_has_no_interval_is_not_printed_as_a_figure(first) -> None:
    record = records.minimal_record()
    record = replace(record, machine=replace(record.machine, load_average_1min=None))
    facts = dict(conditions.facts(record))
    assert facts["system"].endswith("load unknown")
    assert facts["pictures"] == "16 synthetic pictures, 720x1280 (height x width)"
    p50 = replace(first.latency.p50_ms, low=5.0, value=5.0, high=5.0)
    of_one_round = replace(first, latency=replace(first.latency, p50_ms=p50))
    known = replace(first, latency=replace(first.latency, p50_ms=replace(p50, high=5.5)))
    wide = replace(first, latency=replace(first.latency, p50_ms=replace(p50, high=50.0)))
    *_, none, tenth, more, _ = printed(latency_table([of_one_round, known, wide]))
    assert "±" not in none
    assert " 5.00 ±10% " in tenth
    assert " 5.00 ±>100% " in more


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25])
def test_a_share_that_few_calls_missed_is_not_shown_as_the_one_that_was_asked_for(
    share: float,
) -> None:
    mixed = records.scenario_result(Scenario(hard_fraction=0.25))
    result = replace(mixed, hard_fraction=share)
    hard = {0.0: "0 % hard, not 25 %", 0.01: "1 % hard, not 25 %", 0.25: "25 % hard"}[share]
    for table in (latency_table([result]), exits_table([result])):
        assert table.columns[0].cells[0].text == f"batch 1, {hard}"


def test_a_scenario_that_is_unusual_in_several_ways_is_told_whole(first) -> None:
    odd = replace(first, scenario=Scenario(concurrency=2, rate_per_s=5.0))
    *_, figures, rest, _ = printed(latency_table([odd]))
    assert len(figures) <= 80
    assert figures.startswith("batch 1, as routed, ")
    assert rest.strip() == "2 callers, 5 calls/s"


@pytest.mark.parametrize(
    ("counts", "told"), [((2, 2), "2 calls each; "), ((1, 1), "1 call each; "), ((1, 3), "1 to 3")]
)
def test_calls_are_counted_as_one_says_it(counts, told, first) -> None:
    results = [replace(first, latency=replace(first.latency, count=count)) for count in counts]
    assert words.footnote(results).startswith(told)


def test_a_model_is_told_in_the_singular_too() -> None:
    held, fitted = (ModelCheck(Scenario(), 1.0, 1.0, held_out) for held_out in (True, False))

    def told(*checks: ModelCheck) -> str:
        return words.model_words(LatencyModel((), checks, 0.1))

    assert told(held, fitted).endswith("over 1 scenario that was held out.")
    assert told(held, held).endswith("over 2 scenarios that were held out.")
    assert told(fitted).endswith("over the scenario that it was fitted on.")
    assert told(fitted, fitted, fitted).endswith("over the 3 scenarios that it was fitted on.")


def test_figures_stand_below_each_other_beside_intervals_and_bars() -> None:
    table = make_table(
        "title",
        column("name", ["a", "b"], words=True),
        column("ratio", [Cell("0.98", "0.9 to 1.0"), Cell("12.3", "11 to 13")]),
        column("share", [Cell("9 %", share=0.0), Cell("91 %", share=0.5)]),
    )
    *_, one, other, _ = printed(table)
    assert one.split() == ["a", "0.98", "(0.9", "to", "1.0)", "9", "%", "▏"]
    assert one.index("0.98 (") == other.index("12.3 (")
    assert one.index("%") == other.index("%")
    assert other.rstrip().endswith("██████")
