from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from dyninfer.benchmarks.lab.limits.__main__ import GROUPS, check_groups, main, measure_apart
from dyninfer.benchmarks.lab.limits.record import (
    LimitResult,
    LimitsRecord,
    ended_run,
    limits_markdown,
    limits_table,
    print_limits,
    read_limits,
    write_limits,
)
from dyninfer.benchmarks.machine import MachineLog, describe_machine
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import RatioEstimate
from tests import support


def result(median: float, limit: float = 0.7, unit: str = "ratio") -> LimitResult:
    measured = RatioEstimate(median, median * 0.9, median * 1.1, 0.95, 3)
    times = {"ours": (1.0, 2.0, 3.0), "theirs": (2.0, 4.0, 6.0)}
    return LimitResult("a-row", "this over that", limit, measured, times, "a note", unit)


def record(*results: LimitResult) -> LimitsRecord:
    return LimitsRecord(
        **ended_run(),
        machine=describe_machine(),
        log=MachineLog(1.0, 2, {}),
        model="a model",
        results=results,
    )


def test_a_limit_holds_up_to_its_limit() -> None:
    assert result(0.7).holds
    assert not result(0.7001).holds


def test_microseconds_and_ratios_are_written_with_digits_that_mean_something() -> None:
    table = limits_table(record(result(0.5), result(123.4, 100, "microseconds")))
    fast, slow = (tuple(cell.text for cell in row) for row in table.rows)
    assert fast == ("a-row", "0.7", "0.500", "0.450 to 0.550", "met")
    assert slow == ("a-row", "100 µs", "123 µs", "111 to 136", "missed")


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = record(result(0.5), result(120.0, 100, "microseconds"))
    write_limits(written, tmp_path / "new" / "targets.json")
    again = read_limits(tmp_path / "new" / "targets.json")
    assert limits_markdown(again) == limits_markdown(written)
    assert read_limits(tmp_path / "new" / "targets.json").machine == written.machine


def test_the_record_of_before_is_still_read() -> None:
    path = support.ROOT / "benchmarks" / "results" / "targets-cpu.json"
    assert read_limits(path).benchmark == "targets"  # as the module was called
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["--show", str(path)])
    assert done.exit_code == 0
    assert "| engines-easy | 1 |" in done.output


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a record of the limits") as refusal:
        read_limits(path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_limits(tmp_path / "absent.json")


def test_a_record_is_legible_at_80_columns() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        print_limits(record(result(0.5)), console)
    *_, head, rule, row = shown.get().split("\n\n")[0].splitlines()
    assert max(map(len, (head, rule, row))) <= 80
    assert "0.450 to 0.550" in shown.get()


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_measures_with_what_it_is_given(name: str) -> None:
    group = GROUPS[name]
    parameters = inspect.signature(group.measure).parameters
    assert ("bundle" in parameters) == group.needs_bundle
    assert "rounds" in parameters
    assert group.rounds >= 2


def test_groups_come_in_their_own_order_whatever_was_asked_first() -> None:
    assert check_groups("engines, preprocessing") == ("preprocessing", "engines")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no group of limits is named"), ("engine", "did you mean engines"), ("x", "expected")],
)
def test_groups_that_do_not_exist_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_groups(text)


def test_a_group_is_measured_in_a_process_of_its_own() -> None:
    (result,) = measure_apart("preprocessing", Path("not needed"), 2)
    assert result.key == "preprocessing"
    assert result.measured.rounds == 2
    assert all(len(times) == 2 for times in result.times_ms.values())


def test_what_a_group_refuses_reaches_the_caller() -> None:
    with pytest.raises(InputError, match="paired"):
        measure_apart("preprocessing", Path("not needed"), 1)
