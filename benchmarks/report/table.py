"""The one model of a table and of what stands around it; how it looks is a renderer's business.

Renderers are :mod:`~dyninfer.benchmarks.report.terminal`, of 80 columns,
:mod:`~dyninfer.benchmarks.report.markdown` and :mod:`~dyninfer.benchmarks.report.html`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Flag, auto

from dyninfer.benchmarks.report.figures import ABSENT

TableRow = tuple["Cell", ...]
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
    cells: TableRow
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
    def rows(self) -> tuple[TableRow, ...]:
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
