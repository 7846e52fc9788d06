"""Tables and whole records for a terminal of 80 columns. Cheap to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from dyninfer.benchmarks.report.table import Block, Cell, Column, Medium, Pairs, Paragraph, Table

if TYPE_CHECKING:
    from dyninfer.benchmarks.report.page import Page

_BAR = 12  # columns of a share of 1


def print_page(page: Page, console: Console) -> None:
    """The result, what was measured, the tables, and what is missing."""
    console.print(Text(page.title, style="bold"), soft_wrap=True)
    console.print(Text(page.sentence), soft_wrap=True)
    print_block(Pairs("", page.facts), console)
    console.print()
    for section in page.sections:
        for block in section.shown_in(Medium.TERMINAL):
            print_block(block, console)
    for what, why in page.left_out:
        console.print(Text(f"not measured: {what} ({why})"), soft_wrap=True)


def print_block(block: Block, console: Console) -> None:
    """A table, a paragraph, or pairs."""
    if isinstance(block, Table):
        print_table(block, console)
    elif isinstance(block, Paragraph):
        console.print(Text(block.text), soft_wrap=True)
    elif isinstance(block, Pairs):
        listed = rich_table.Table.grid(padding=(0, 2))
        for name, value in block.pairs:
            listed.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
        console.print(listed)


def print_table(table: Table, console: Console) -> None:
    """A table below its title."""
    shown = table.shown_in(Medium.TERMINAL)
    made = rich_table.Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )
    for column in shown.columns:
        _add_column(made, column)
    for row in zip(*map(_texts, shown.columns), strict=True):
        made.add_row(*row)
    if table.title:
        console.print(Text(table.title, style="italic"), soft_wrap=True)
    console.print(made)
    console.print()


def _add_column(made: rich_table.Table, column: Column) -> None:
    if column.words or any(map(_beside, column.cells)):
        made.add_column(Text(column.name))  # what stands beside a figure may go to the next line
    else:
        made.add_column(Text(column.name), justify="right", no_wrap=True)


def _texts(column: Column) -> list[Text]:
    """The cells, the figures of which stand below each other also where something is beside."""
    beside = [_beside(cell) for cell in column.cells]
    if column.words or not any(beside):
        return [
            Text(f"{cell.text}; {text}" if text else cell.text, overflow="fold")
            for cell, text in zip(column.cells, beside, strict=True)
        ]
    wide = max(len(cell.text) for cell in column.cells)
    return [
        Text(f"{cell.text:>{wide}} {text}".rstrip())
        for cell, text in zip(column.cells, beside, strict=True)
    ]


def _beside(cell: Cell) -> str:
    if cell.share is not None:
        return "█" * round(_BAR * cell.share) or "▏"
    if cell.brief is not None:
        return cell.brief
    return f"({cell.detail})" if cell.detail else ""
