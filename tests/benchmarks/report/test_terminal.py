from __future__ import annotations

import io

import pytest

from dyninfer.benchmarks.report.table import Cell, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal, styled


class Window(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, text, columns: int, stream: io.StringIO) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    terminal.file = stream
    terminal.print(text)
    return stream.getvalue().splitlines()


LINE = "results are in predictions-2; thresholds need a calibration: dyninfer calibrate x.dyn -i y/"


def test_lines_in_a_window_break_between_words_and_before_a_command(monkeypatch) -> None:
    assert shown(monkeypatch, LINE, 40, Window()) == [
        "results are in predictions-2; thresholds",
        "need a calibration:",
        "dyninfer calibrate x.dyn -i y/",
    ]
    assert shown(monkeypatch, styled(("results", "bold"), " of all"), 12, Window()) == [
        "results of",
        "all",
    ]


def test_a_command_and_a_word_that_are_longer_than_the_window_stay_whole(monkeypatch) -> None:
    assert shown(monkeypatch, LINE, 20, Window())[-1] == "dyninfer calibrate x.dyn -i y/"
    long = "x" * 50
    assert shown(monkeypatch, f"a {long} b", 20, Window()) == ["a", long, "b"]


def test_elsewhere_lines_stay_whole(monkeypatch) -> None:
    assert shown(monkeypatch, LINE, 20, io.StringIO()) == [LINE]


TABLE = make_table(
    "",
    column("stage", ["first", "second"], words=True),
    column("reads", ["images", "images, and 3 features"], words=True),
    column("parameters", ["16.7 M", "1.02 k"]),
    column("ms", [Cell("12.3", "11.9 to 12.5"), Cell("1,234", "1,200 to 1,300")]),
    column("share", [Cell("12 %", share=0.12), Cell("100 %", share=1.0)]),
)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
def test_every_word_and_figure_of_a_table_is_there_whole(monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    terminal.file = io.StringIO()
    print_table(TABLE, terminal)
    out = terminal.file.getvalue()
    assert max(map(len, out.splitlines())) <= columns
    words = {"stage", "reads", "parameters", "ms", "share", "first", "second", "images,", "images"}
    assert words | {"features", "16.7", "1.02", "1,234", "1,300)", "12.5)", "100"} <= set(
        out.split()
    )


def test_a_table_in_parts_repeats_its_first_column(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "27")
    terminal = Terminal()
    terminal.file = io.StringIO()
    print_table(make_table("", *TABLE.columns[:3]), terminal)
    assert [line.rstrip() for line in terminal.file.getvalue().splitlines()] == [
        "stage   reads",
        "───────────────────",
        "first   images",
        "second  images, and",
        "        3 features",
        "",
        "stage   parameters",
        "──────────────────",
        "first       16.7 M",
        "second      1.02 k",
        "",
    ]


def test_the_width_is_what_it_is_now_and_not_at_the_import(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "33")
    assert terminal.width == terminal.size.width == terminal.options.max_width == 33
    for nothing in ("0", "wide", ""):
        monkeypatch.setenv("COLUMNS", nothing)
        assert terminal.width == 80  # of what is no window
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "33")
    assert Terminal().width == 33
