from __future__ import annotations

from dataclasses import replace

import pytest

from dyninfer.benchmarks.latency.record import ContenderTimes, ModelCheck
from dyninfer.benchmarks.latency.scenario_record import ExitTime, Scenario
from dyninfer.benchmarks.latency.step_costs import StepCost
from dyninfer.benchmarks.report import conditions, tables
from dyninfer.benchmarks.report.figures import ABSENT
from dyninfer.benchmarks.report.table import Table
from tests.benchmarks.report.report_records import (
    baselines,
    full_record,
    log,
    model,
    scenario_result,
)

RECORD = full_record()


def names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def column(table: Table, name: str) -> list[str]:
    return [row[names(table).index(name)].text for row in table.rows]


def test_every_table_has_as_many_cells_in_a_row_as_columns() -> None:
    assert RECORD.model is not None
    made = [
        tables.latency_table(RECORD.scenarios),
        tables.exits_table(RECORD.scenarios),
        tables.kinds_table(RECORD.scenarios),
        tables.spans_table(RECORD.scenarios[1]),
        tables.curve_table(RECORD.pictures.curve),
        tables.ratios_table(baselines()),
        tables.contenders_table(baselines()),
        tables.memory_table(baselines()),
        tables.steps_table(RECORD.model),
        tables.checks_table(RECORD.model),
        conditions.stages_table(RECORD.measured.stages),
        conditions.readings_table(log()),
        conditions.missing_table(RECORD),
    ]
    for table in made:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_percentiles_that_too_few_calls_support_leave_a_dash_or_no_column() -> None:
    few, many = (scenario_result(Scenario(), calls=calls) for calls in (30, 400))
    both = tables.latency_table([few, many])
    assert column(both, "p99 ms") == [ABSENT, f"{many.latency.p99_ms.value:.1f}"]
    assert "p99.9 ms" not in names(both)
    assert column(both, "p95 ms") == [ABSENT, f"{many.latency.p95_ms.value:.1f}"]
    assert "p90 ms" in names(tables.latency_table([few]))
    assert "p99 ms" not in names(tables.latency_table([few]))


def test_late_calls_have_a_column_only_where_there_is_a_rate() -> None:
    closed = scenario_result(Scenario())
    fixed = scenario_result(Scenario(rate_per_s=20))
    assert "late calls" not in names(tables.latency_table([closed]))
    assert column(tables.latency_table([closed, fixed]), "late calls") == [ABSENT, "23.1 %"]


def test_time_per_image_is_not_told_of_a_fixed_rate_where_it_is_mostly_waiting() -> None:
    both = [scenario_result(Scenario()), scenario_result(Scenario(rate_per_s=20))]
    shown = column(tables.latency_table(both), "ms between images")
    assert shown == [f"{both[0].ms_per_image.value:.1f}", ABSENT]


def test_exits_are_compared_only_where_several_have_calls_of_their_own() -> None:
    mixed = scenario_result(Scenario(hard_fraction=0.5))
    alone = replace(mixed, exits=(mixed.exits[0], ExitTime(1, 0.5, None)))
    assert tables.exits_table([alone]).rows == ()
    assert column(tables.exits_table([mixed, alone]), "exit") == ["0", "1"]


def test_a_step_that_never_ran_is_not_listed_and_shares_add_up() -> None:
    listed = tables.spans_table(scenario_result(Scenario(hard_fraction=0.0)))
    assert "second" not in column(listed, "step")
    assert "head" in column(listed, "step")
    *shares, of_the_sum = column(listed, "of the time")
    assert sum(float(text.strip("< %")) for text in shares) == pytest.approx(100, abs=0.5)
    assert (column(listed, "step")[-1], of_the_sum) == ("sum", "")
    *times, total = (float(text) for text in column(listed, "ms per image"))
    assert sum(times) == pytest.approx(total, rel=0.01)


def test_kinds_of_work_add_up() -> None:
    table = tables.kinds_table(RECORD.scenarios)
    for row in table.rows:
        figures = [float(cell.text.replace(",", "")) for cell in row[1:]]
        assert sum(figures[:-1]) == pytest.approx(figures[-1], rel=0.01)


def test_ratios_have_a_column_for_each_side_and_a_dash_where_one_was_not_run() -> None:
    found = baselines()
    table = tables.ratios_table(
        replace(found, ratios=found.ratios[:4], differences={"pytorch-eager": 2.4e-6})
    )
    assert names(table) == ["against", "exit 0 images", "exit 1 images", "difference of results"]
    assert column(table, "exit 0 images") == ["0.980", "0.480", "0.830"]
    assert column(table, "exit 1 images") == ["1.00", ABSENT, ABSENT]
    assert column(table, "difference of results") == [ABSENT, "2e-06", ABSENT]


def test_a_contender_that_ran_one_side_has_dashes_on_the_other() -> None:
    one = ContenderTimes("naive", "what", "easy", (1.0,), 1.0, 0.9, 1.1, 0.0)
    two = ContenderTimes("dyninfer", "what", "hard", (2.0,), 2.0, 1.9, 2.1, 0.0)
    found = replace(baselines(), times=(one, two), notes={"naive": "compiled in 3 s"})
    table = tables.contenders_table(found)
    assert column(table, "easy, median ms") == ["1.00", ABSENT]
    assert column(table, "hard, median ms") == [ABSENT, "2.00"]
    assert table.rows[0][0].detail == "what; compiled in 3 s"


def test_readings_name_their_units() -> None:
    assert conditions.reading_words("cpu_mhz") == "CPU, MHz"
    assert conditions.reading_words("gpu_temperature_c") == "GPU temperature, °C"
    assert conditions.reading_words("other_load_cores") == "other load, cores"
    assert conditions.reading_words("sampling") == "sampling"
    drifting = replace(log(), drift={"cpu_temperature_c": 6.5})
    assert column(conditions.readings_table(drifting), "drift") == [ABSENT, "+6.50", ABSENT]
    assert "drift" not in names(conditions.readings_table(log()))


def test_the_model_s_errors_carry_their_sign() -> None:
    predicted = (10.5, 9.0, 10.0, 9.9999)
    checks = tuple(ModelCheck(Scenario(), 10.0, value, True) for value in predicted)
    table = tables.checks_table(replace(model(RECORD.scenarios), checks=checks))
    assert column(table, "error") == ["+5.0 %", "-10.0 %", "0.0 %", "0.0 %"]


def test_a_share_that_was_not_reached_is_told_with_the_one_that_was_asked_for() -> None:
    rare = replace(scenario_result(Scenario(hard_fraction=0.01)), hard_fraction=0.0)
    assert column(tables.latency_table([rare]), "scenario") == ["batch 1, 0 % hard, not 1 %"]
    near = replace(rare, hard_fraction=0.0095)
    assert column(tables.latency_table([near]), "scenario") == ["batch 1, 1 % hard"]


def test_no_step_has_a_cost_below_0_and_no_count_ten_zeros() -> None:
    steps = (StepCost("first", 12.0, 14.0), StepCost("router", 0.3, 0.2))
    table = tables.steps_table(replace(RECORD.model, steps=steps))
    assert column(table, "first image, ms") == ["12.0", "0.300"]
    assert column(table, "each further, ms") == ["14.0", "0.200"]
    stage = replace(RECORD.measured.stages[0], parameters=10, macs=None)
    small = conditions.stages_table([stage, replace(stage, parameters=16_672_736, macs=2_000)])
    assert column(small, "parameters") == ["10", "16.7 M"]
    assert column(small, "multiply-adds") == [ABSENT, "2.00 k"]
