"""What is shown of a record, section by section, as plain values: renderers only place them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dyninfer.benchmarks.report.distributions import Panel
from dyninfer.benchmarks.report.settings import Setting
from dyninfer.benchmarks.report.svg import Chart, Element
from dyninfer.benchmarks.report.table import Block, Medium, Table, TextPairs


@dataclass(frozen=True)
class PageBlock(Block):
    """What only a page has room for, or can draw."""

    media: Medium = field(default=Medium.PAGE, kw_only=True)


@dataclass(frozen=True)
class Figure(PageBlock):
    """A drawing, with a heading where there are several."""

    kind = "figure"
    chart: Chart
    title: str = ""


@dataclass(frozen=True)
class Legend(PageBlock):
    """What the patterns of a drawing mean; ``patterns`` are their definitions."""

    kind = "legend"
    patterns: Element
    marks: tuple[tuple[Element, str], ...]


@dataclass(frozen=True)
class Panels(PageBlock):
    """Small drawings side by side."""

    kind = "panels"
    title: str
    lead: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Folded(PageBlock):
    """Tables that a reader opens."""

    kind = "folded"
    title: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Thumbnail:
    """A sample picture.

    ``source`` is a data URL, or empty where the record holds no picture; ``exit_index`` is where it
    leaves when the page opens.
    """

    index: int
    name: str
    caption: str
    source: str
    exit_index: int


@dataclass(frozen=True)
class SpeedAccuracy(PageBlock):
    """The slider and what follows it.

    Attributes:
        chart: None where there is no measure of accuracy; ``note`` then says so.
        quality: name of that measure; empty where there is none.
        current: the position that the page opens with.
        start: index of that position.
        last: index of the last position.
        groups: headings of the groups of pictures, by exit.
        data: every position, for the script.
    """

    kind = "curve"
    chart: Chart | None
    note: str
    quality: str
    current: Setting
    start: int
    last: int
    groups: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]
    table: Table
    data: Mapping[str, object]


@dataclass(frozen=True)
class Section:
    """A part of the page; ``absent`` says why there is nothing in it, where that is so."""

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    absent: str = ""
    media: Medium = Medium.ALL

    def shown_in(self, medium: Medium) -> list[Block]:
        """The blocks that are for this medium."""
        return [block for block in self.blocks if medium in block.media & self.media]


@dataclass(frozen=True)
class Page:
    """The whole: the result in a sentence, what was measured, what to be wary of, the sections."""

    title: str
    sentence: str
    facts: TextPairs
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    left_out: TextPairs
    footer: str
