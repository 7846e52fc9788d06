"""What the page shows, as plain values: a template only places them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dyninfer.benchmarks.report.distributions import Panel
from dyninfer.benchmarks.report.easiness import EasinessChart
from dyninfer.benchmarks.report.svg import Chart, Element
from dyninfer.benchmarks.report.tables import Table

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Headline:
    """The result in a sentence, what was measured, and what to be wary of."""

    title: str
    sentence: str
    facts: Rows
    warnings: tuple[str, ...]


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
class SpeedAccuracy:
    """The slider and what follows it.

    Attributes:
        chart: None where there is no measure of accuracy; ``note`` then says so.
        quality: name of that measure; empty where there is none.
        texts: what the slider's figures say when the page opens, by place.
        policy: Python that sets the position that the page opens with.
        spoken: that position for a screen reader.
        start: index of that position.
        last: index of the last position.
        groups: headings of the groups of pictures, by exit.
        data: every position, for the script.
    """

    chart: Chart | None
    note: str
    quality: str
    texts: Mapping[str, str]
    policy: str
    spoken: str
    start: int
    last: int
    groups: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]
    table: Table
    data: Mapping[str, object]


@dataclass(frozen=True)
class Spans:
    """Where the time goes: bars, the legend of their kinds, a table for each bar."""

    chart: Chart
    patterns: Element
    legend: tuple[tuple[Element, str], ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Latency:
    """Percentiles, and a panel for each scenario."""

    table: Table
    folded: tuple[Table, ...]
    panels: tuple[Panel, ...]
    fixed_rate: str


@dataclass(frozen=True)
class Easiness:
    """A histogram for each router."""

    charts: tuple[EasinessChart, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AgainstBaselines:
    """Ratios, times, memory, and which baselines are absent."""

    chart: Chart | None
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """The latency model and how well it predicts."""

    chart: Chart | None
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Conditions:
    """Everything under which the figures were taken."""

    machine: Rows
    run: Rows
    command: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    glossary: Rows


Content = SpeedAccuracy | Spans | Latency | Easiness | AgainstBaselines | Model | Conditions | str


@dataclass(frozen=True)
class Section:
    """A part of the page; content that is a string says why the part is left out."""

    key: str
    title: str
    content: Content

    @property
    def absent(self) -> bool:
        """Whether there is only a reason."""
        return isinstance(self.content, str)


@dataclass(frozen=True)
class Page:
    """The whole page."""

    headline: Headline
    sections: tuple[Section, ...]
    footer: str
