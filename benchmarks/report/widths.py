"""How wide the columns of a table are on a terminal: none is lost, no word broken that fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len

_GAP = 2  # between two columns


class FittedColumn(NamedTuple):
    """A column as text; ``folds`` tells whether its cells may be broken between words."""

    name: str
    texts: tuple[str, ...]
    folds: bool

    @property
    def most(self) -> int:
        """Width with no cell folded."""
        return max(map(cell_len, (self.name, *self.texts)))

    @property
    def least(self) -> int:
        """Width with no word broken, nor any figure."""
        words = (word for text in (self.name, *self.texts) for word in text.split())
        return max(map(cell_len, words), default=1) if self.folds else self.most

    def lines(self, width: int) -> int:
        """How many its cells take."""
        return sum(_lines(text, width) for text in (self.name, *self.texts))


@lru_cache(maxsize=4096)
def _lines(text: str, width: int) -> int:
    """How many a text takes that is folded at its words."""
    lines, room = 1, width
    for word in re.finditer(r"\s*\S+", text):
        size = cell_len(word[0])
        if size > room and room < width:
            lines, room, size = lines + 1, width, cell_len(word[0].lstrip())
        room -= size
    return lines


def in_parts(columns: Sequence[FittedColumn], width: int) -> list[list[FittedColumn]]:
    """The columns, as many in a part as fit side by side, but at least one beside the first."""
    parts = [list(columns[:1])]
    for column in columns[1:]:
        if len(parts[-1]) > 1 and sum(c.least + _GAP for c in [*parts[-1], column]) - _GAP > width:
            parts.append([columns[0]])
        parts[-1].append(column)
    return parts


def widths_of(columns: Sequence[FittedColumn], width: int) -> list[int]:
    """As wide as the cells; where there is no room for that, so that few lines are folded."""
    widths = [column.least for column in columns]
    spare = width - sum(widths) - _GAP * (len(columns) - 1)
    if spare < 0 and columns[0].folds:  # of one column and the first: break its words
        widths[0] = max(1, widths[0] + spare)
    while steps := [
        step
        for place, column in enumerate(columns)
        for step in _wider(place, column, widths, spare)
    ]:
        _, place, more = max(steps)
        widths[place] += more
        spare -= more
    return widths


def _wider(
    place: int, column: FittedColumn, widths: Sequence[int], spare: int
) -> Iterator[tuple[float, int, int]]:
    """Lines that each wider column saves for each step, the column's place, and the steps."""
    now = column.lines(widths[place])
    for more in range(1, min(spare, column.most - widths[place]) + 1):
        saved = now - column.lines(widths[place] + more)
        if saved:
            yield saved / more, place, more
