"""Tables and what stands around them, and how a terminal of 80 columns shows it. Cheap to import.

Markdown and pages are made of the same in :mod:`~dyninfer.benchmarks.report.documents`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import TYPE_CHECKING, Literal

from rich import box
from rich import table as rich_table

from dyninfer.benchmarks.report.figures import ABSENT
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.benchmarks.report.widths import FittedColumn, in_parts, widths_of
from dyninfer.plain_text import plain

if TYPE_CHECKING:
    from dyninfer.benchmarks.report.view import Page

_BAR = 12  # columns of a share of 1
TextPairs = tuple[tuple[str, str], ...]


class Medium(Flag):
    """Where something is shown; a terminal has the least room, and a page alone has drawings."""

    TERMINAL = auto()
    MARKDOWN = auto()
    PAGE = auto()
    TEXT = TERMINAL | MARKDOWN
    WIDE = MARKDOWN | PAGE
    ALL = TERMINAL | MARKDOWN | PAGE


@dataclass(frozen=True)
class Cell:
    """A value and what goes with it.

    Attributes:
        text: the value.
        detail: of less weight, such as its interval.
        brief: in place of the detail where there is little room; None for the detail itself.
        share: of a whole, from 0 to 1, which a terminal draws as a bar.
    """

    text: str
    detail: str = ""
    brief: str | None = None
    share: float | None = None


@dataclass(frozen=True)
class Column:
    """A heading and the cells below it: words, or figures, which are aligned to the right."""

    name: str
    cells: tuple[Cell, ...]
    words: bool = False
    media: Medium = Medium.ALL


def column(
    name: str, cells: Iterable[Cell | str], *, words: bool = False, media: Medium = Medium.ALL
) -> Column:
    """A column of cells, of which those without a detail may be given as text."""
    made = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
    return Column(name, made, words, media)


@dataclass(frozen=True)
class Block:
    """A part of a section."""

    media: Medium = field(default=Medium.ALL, kw_only=True)

    @property
    def kind(self) -> str:
        """What a template knows it by."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Table(Block):
    """Columns of equal length."""

    title: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """The cells row by row."""
        return tuple(zip(*(column.cells for column in self.columns), strict=True))

    def shown_in(self, medium: Medium) -> Table:
        """The table with the columns that are for this medium."""
        return Table(self.title, tuple(c for c in self.columns if medium in c.media))


def make_table(title: str, *columns: Column, media: Medium = Medium.ALL) -> Table:
    """A table without the columns in which every row has a dash."""
    kept = (c for c in columns if any(cell.text != ABSENT for cell in c.cells))
    return Table(title, tuple(kept), media=media)


@dataclass(frozen=True)
class Paragraph(Block):
    """A few sentences; ``style`` is ``lead`` before a drawing, ``note`` for small print."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Pairs(Block):
    """Names and values; a name that is indented belongs to the one before."""

    title: str
    pairs: TextPairs


@dataclass(frozen=True)
class Code(Block):
    """A command."""

    title: str
    text: str


@dataclass(frozen=True)
class PageBlock(Block):
    """What only a page has room for, or can draw."""

    media: Medium = field(default=Medium.PAGE, kw_only=True)


def print_page(page: Page, terminal: Terminal) -> None:
    """The result, what was measured, the tables, and what is missing."""
    terminal.print(page.title, style="bold")
    terminal.print(page.sentence)
    print_block(Pairs("", page.facts), terminal)
    terminal.print()
    for section in page.sections:
        for block in section.shown_in(Medium.TERMINAL):
            print_block(block, terminal)
    for what, why in page.left_out:
        terminal.print(f"not measured: {what} ({why})")


def print_block(block: Block, terminal: Terminal) -> None:
    """A table, a paragraph, or pairs."""
    if isinstance(block, Table):
        print_table(block, terminal)
    elif isinstance(block, Paragraph):
        terminal.print(block.text)
    elif isinstance(block, Pairs):
        listed = rich_table.Table.grid(padding=(0, 2))
        listed.add_column(style="dim")
        listed.add_column(overflow="fold")
        for pair in block.pairs:
            listed.add_row(*pair)
        terminal.print(listed)


def print_table(table: Table, terminal: Terminal) -> None:
    """A table below its title; in parts, each with the first column, where it is too wide."""
    if table.title:
        terminal.print(table.title, style="italic")
    shown = [_fitted(column) for column in table.shown_in(Medium.TERMINAL).columns]
    for part in in_parts(shown, terminal.width):
        made = rich_table.Table(
            box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
        )
        for column, width in zip(part, widths_of(part, terminal.width), strict=True):
            side: Literal["left", "right"] = "left" if column.folds else "right"
            made.add_column(column.name, justify=side, width=width, overflow="fold")
        for row in zip(*(column.texts for column in part), strict=True):
            made.add_row(*row)
        terminal.print(made)
        terminal.print()


def _fitted(column: Column) -> FittedColumn:
    """Words may go to the next line, and so may what stands beside a figure."""
    folds = column.words or any(map(_beside, column.cells))
    return FittedColumn(plain(column.name), tuple(map(plain, _texts(column))), folds)


def _texts(column: Column) -> list[str]:
    """The cells, the figures of which stand below each other also where something is beside."""
    pairs = [(plain(cell.text), _beside(cell)) for cell in column.cells]
    if column.words or not any(beside for _, beside in pairs):
        return ["; ".join(filter(None, pair)) for pair in pairs]
    wide = max(len(text) for text, _ in pairs)
    return [f"{text:>{wide}} {beside}".rstrip() for text, beside in pairs]


def _beside(cell: Cell) -> str:
    if cell.share is not None:
        return "█" * round(_BAR * cell.share) or "▏"
    if cell.brief is not None:
        return cell.brief
    return f"({cell.detail})" if cell.detail else ""
