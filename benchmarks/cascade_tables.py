"""Results of the cascade contest as tables: for a terminal, and as Markdown for a document.

``python -m dyninfer.benchmarks.cascade_tables RESULT.json...`` prints the Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dyninfer.benchmarks.cascade_record import CascadeRecord, read_record
from dyninfer.errors import DyninferError

COMPARISON_COLUMNS = ("against", "image", "call", "time ratio", "95 % interval", "aim")
TIME_COLUMNS = ("contender", "call", "image", "median ms", "quartiles ms", "idle CPU ms")
MEMORY_COLUMNS = ("contender", "load ms", "after loading MiB", "peak MiB")

Rows = list[tuple[str, ...]]


def comparison_rows(record: CascadeRecord) -> Rows:
    """One row for each comparison of times, and one for memory."""
    rows: Rows = [
        (
            entry.other.value,
            entry.side.value,
            entry.call.value,
            f"{entry.ratio.median:.3f}",
            f"{entry.ratio.low:.3f} to {entry.ratio.high:.3f}",
            _aim(entry.limit, entry.holds),
        )
        for entry in record.comparisons
    ]
    memory = record.memory_comparison
    aim = _aim(memory.limit, memory.holds)
    ratio = f"{memory.ratio:.3f}"
    return [*rows, (memory.other.value, "both", "peak memory", ratio, "-", aim)]


def _aim(limit: float, holds: bool) -> str:
    return f"<= {limit:g}: {'met' if holds else 'missed'}"


def time_rows(record: CascadeRecord) -> Rows:
    """One row for each contender, call and side."""
    return [
        (
            timing.kind.value,
            timing.call.value,
            timing.side.value,
            f"{timing.quantiles.median_ms:.1f}",
            f"{timing.quantiles.p25_ms:.1f} to {timing.quantiles.p75_ms:.1f}",
            f"{timing.idle_cpu_ms:.1f}",
        )
        for timing in record.timings
    ]


def memory_rows(record: CascadeRecord) -> Rows:
    """One row for each contender."""
    return [
        (
            entry.kind.value,
            f"{entry.load_ms:.0f}",
            f"{entry.loaded_mib:.0f}",
            f"{entry.peak_mib:.0f}",
        )
        for entry in record.memory
    ]


def headline(record: CascadeRecord) -> str:
    """One line that says what was measured and where."""
    machine = record.machine
    versions = ", ".join(
        f"{name} {machine.versions[name]}"
        for name in ("onnxruntime", "torch")
        if name in machine.versions
    )
    return (
        f"{record.variant}, {record.weights} weights, {record.height}x{record.width}, "
        f"batch {record.batch}, {record.rounds} rounds; {machine.cpu}, "
        f"{machine.usable_cores} cores; {versions}"
    )


def print_record(record: CascadeRecord, console: Console) -> None:
    """Show a record in a terminal."""
    console.print(headline(record))
    console.print(
        _table("dyninfer's time over the other's", COMPARISON_COLUMNS, comparison_rows(record))
    )
    console.print(_table("Times", TIME_COLUMNS, time_rows(record)))
    console.print(_table("Memory", MEMORY_COLUMNS, memory_rows(record)))


def _table(title: str, columns: Iterable[str], rows: Rows) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    return table


def markdown(record: CascadeRecord) -> str:
    """A record as Markdown: the comparisons, the times, the memory."""
    tables = (
        (COMPARISON_COLUMNS, comparison_rows(record)),
        (TIME_COLUMNS, time_rows(record)),
        (MEMORY_COLUMNS, memory_rows(record)),
    )
    blocks = [f"**{headline(record)}**", *(_markdown_table(*table) for table in tables)]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(columns: Iterable[str], rows: Rows) -> str:
    header = tuple(columns)
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    results: Annotated[list[Path], typer.Argument(help="Files written by the benchmark.")],
) -> None:
    """Print result files as Markdown.

    Example: python -m dyninfer.benchmarks.cascade_tables benchmarks/results/*.json
    """
    try:
        for path in results:
            typer.echo(markdown(read_record(path)))
    except DyninferError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
