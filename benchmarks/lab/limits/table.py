"""Measured limits as a table: for a terminal, and as Markdown for a document."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dyninfer.benchmarks.lab.limits.record import LimitsRecord
from dyninfer.benchmarks.lab.limits.result import LimitResult

COLUMNS = ("limit", "at most", "measured", "95 % interval", "")


def row_of(result: LimitResult) -> tuple[str, ...]:
    """The cells of :data:`COLUMNS`."""
    digits = 0 if result.unit == "microseconds" else 3
    unit = " µs" if result.unit == "microseconds" else ""
    measured = result.measured
    return (
        result.key,
        f"{result.limit:.3g}{unit}",
        f"{measured.median:.{digits}f}{unit}",
        f"{measured.low:.{digits}f} to {measured.high:.{digits}f}",
        "met" if result.holds else "missed",
    )


def headline(record: LimitsRecord) -> str:
    """What was measured and where."""
    machine = record.machine
    return (
        f"{record.model}; {machine.cpu}, {machine.usable_cores} cores; "
        f"onnxruntime {machine.versions.get('onnxruntime', '?')}"
    )


def print_limits(record: LimitsRecord, console: Console) -> None:
    """Show a record in a terminal, with what each row compares below the table."""
    console.print(escape(headline(record)), soft_wrap=True)
    table = Table()
    for name in COLUMNS:
        right = name in COLUMNS[1:4]
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    for result in record.results:
        table.add_row(*map(escape, row_of(result)))
    console.print(table)
    for result in record.results:
        console.print(escape(f"{result.key}: {result.what}. {result.note}"), soft_wrap=True)
    for name, why in record.failures.items():
        console.print(escape(f"{name} could not be measured: {why}"), soft_wrap=True)


def to_markdown(record: LimitsRecord) -> str:
    """A record as a Markdown table, with its notes as a list."""
    lines = [f"**{headline(record)}**", "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("|---|" + "---:|" * 3 + "---|")
    lines += [f"| {' | '.join(row_of(result))} |" for result in record.results]
    notes = [f"- `{result.key}`: {result.what}. {result.note}" for result in record.results]
    notes += [f"- {name} could not be measured: {why}" for name, why in record.failures.items()]
    return "\n".join([*lines, "", *notes])
