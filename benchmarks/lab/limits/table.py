"""Measured limits as a table: for a terminal, and as Markdown for a document."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from dyninfer.benchmarks.lab.limits.record import LimitResult, LimitsRecord
from dyninfer.benchmarks.report.documents import table_text
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table


def limits_table(record: LimitsRecord) -> Table:
    """A row for each limit."""
    results = record.results
    intervals = (f"{_figure(r, r.measured.low)} to {_figure(r, r.measured.high)}" for r in results)
    return make_table(
        _headline(record),
        column("limit", (result.key for result in results), words=True),
        column("at most", (f"{result.limit:.3g}{_unit(result)}" for result in results)),
        column("measured", (_figure(r, r.measured.median) + _unit(r) for r in results)),
        column("95 % interval", intervals),
        column("", ("met" if result.holds else "missed" for result in results), words=True),
    )


def _unit(result: LimitResult) -> str:
    return " µs" if result.unit == "microseconds" else ""


def _figure(result: LimitResult, value: float) -> str:
    return f"{value:.0f}" if result.unit == "microseconds" else f"{value:.3f}"


def _headline(record: LimitsRecord) -> str:
    """What was measured and where."""
    machine = record.machine
    return (
        f"{record.model}; {machine.cpu}, {machine.usable_cores} cores; "
        f"onnxruntime {machine.versions.get('onnxruntime', '?')}"
    )


def _notes(record: LimitsRecord) -> list[tuple[str, str]]:
    """What each row compares, and what could not be measured."""
    compared = [(result.key, f": {result.what}. {result.note}") for result in record.results]
    return compared + [
        (name, f" could not be measured: {why}") for name, why in record.failures.items()
    ]


def print_limits(record: LimitsRecord, console: Console) -> None:
    """Show a record in a terminal."""
    print_table(limits_table(record), console)
    for name, note in _notes(record):
        console.print(Text(name + note), soft_wrap=True)


def limits_markdown(record: LimitsRecord) -> str:
    """A record as a Markdown table, with its notes as a list."""
    table = limits_table(record)
    notes = "\n".join(f"- `{name}`{note}" for name, note in _notes(record))
    return f"**{table.title}**\n\n{table_text(table)}\n\n{notes}"
