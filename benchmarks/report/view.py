"""What is shown of a record, section by section, without showing it: renderers only place it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.report import tables, words
from dyninfer.benchmarks.report.conditions import conditions_of, facts, left_out
from dyninfer.benchmarks.report.latency_charts import Panel, model_chart, panels
from dyninfer.benchmarks.report.row_charts import baselines_chart, kinds_of, spans_chart
from dyninfer.benchmarks.report.slider import easiness_charts, speed_accuracy
from dyninfer.benchmarks.report.svg import Chart
from dyninfer.benchmarks.report.table import (
    Block,
    Medium,
    PageBlock,
    Paragraph,
    Table,
    TextPairs,
)
from dyninfer.plain_text import counted

Blocks = Iterable[Block]
_NO_EASINESS = "no easiness was measured"


@dataclass(frozen=True)
class Figure(PageBlock):
    """A drawing, with a heading where there are several."""

    chart: Chart
    title: str = ""


@dataclass(frozen=True)
class Legend(PageBlock):
    """What the patterns of the steps' bars mean: those of these kinds."""

    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Panels(PageBlock):
    """How calls' latencies are spread: small drawings side by side."""

    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Folded(PageBlock):
    """Tables that a reader opens."""

    title: str
    tables: tuple[Table, ...]


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


def page_of(record: BenchRecord) -> Page:
    """Everything that is shown."""
    return Page(
        title=record.measured.bundle,
        sentence=words.result_sentence(record),
        facts=facts(record),
        warnings=tuple(words.warnings(record)),
        sections=(
            _section("curve", "Accuracy against speed", _speed_accuracy(record)),
            _section("easiness", "How easy the pictures are", _easiness(record), Medium.PAGE),
            _section("spans", "Where the time goes", _spans(record)),
            _section("latency", "Latency", _latency(record)),
            _section("baselines", "Against the baselines", _baselines(record)),
            _section("model", "Latency model and energy", _model(record)),
            _section("conditions", "Machine, command, words", conditions_of(record)),
        ),
        left_out=left_out(record),
        footer=f"Written by {record.written_by}, record of {record.started_utc}.",
    )


def _section(key: str, title: str, content: Blocks | str, media: Medium = Medium.ALL) -> Section:
    if isinstance(content, str):
        return Section(key, title, absent=content, media=media)
    filled = (block for block in content if not isinstance(block, Table) or block.rows)
    return Section(key, title, tuple(filled), media=media)


def _speed_accuracy(record: BenchRecord) -> Blocks | str:
    curve = record.pictures.curve
    if not curve:
        return words.why_missing(record, ("curve",), _NO_EASINESS)
    return [speed_accuracy(record), tables.curve_table(tables.thinned(curve), Medium.TEXT)]


def _easiness(record: BenchRecord) -> Blocks | str:
    pictures = record.pictures
    if not any(pictures.easiness):
        return words.why_missing(record, ("easiness", "curve"), _NO_EASINESS)
    several = len(pictures.easiness) > 1
    charts = [
        Figure(drawn, f"Router of exit {router}" if several else "")
        for router, drawn in enumerate(easiness_charts(record))
    ]
    notes = (
        f"Without a number (NaN) by the router of exit {router}: "
        f"{counted(values.count(None), 'image')}, counted as hard and not in the chart."
        for router, values in enumerate(pictures.easiness)
        if None in values
    )
    return [*charts, *(Paragraph(note, "note") for note in notes)]


def _spans(record: BenchRecord) -> Blocks | str:
    results = [result for result in words.closed_loop(record) if result.spans]
    if not results:
        return "no closed-loop scenario was measured."
    return [
        Legend(tuple(kind.value for kind in kinds_of(results))),
        Figure(spans_chart(results)),
        tables.kinds_table(results, Medium.MARKDOWN),
        *(tables.spans_table(end, Medium.TERMINAL) for end in words.forced_ends(record.scenarios)),
        Folded("Every step as a table", tuple(tables.spans_table(result) for result in results)),
    ]


def _latency(record: BenchRecord) -> Blocks | str:
    results = record.scenarios
    if not results:
        return "no scenario was measured."
    fixed = any(result.scenario.rate_per_s is not None for result in results)
    note = "" if fixed else " There is no scenario at a fixed rate: no rate was asked for."
    by_exit, mixed = tables.exits_table(results), words.mixture(results)
    drawn = panels([result for result in results if any(result.rounds_ms)])
    return [
        tables.latency_table(results),
        Paragraph(words.footnote(results), media=Medium.TERMINAL),
        Paragraph(f"With a figure: its 95 % interval.{note}", "note", media=Medium.WIDE),
        *([tables.exits_table([mixed], Medium.TEXT)] if mixed else ()),
        *([Folded("By exit, as a table", (by_exit,))] if by_exit.rows else ()),
        *([Panels(tuple(drawn))] if drawn else ()),
    ]


def _baselines(record: BenchRecord) -> Blocks | str:
    found = record.baselines
    if found is None:
        return words.why_missing(record, ("baselines",), "no baselines were asked for")
    lead = (
        "All contenders ran in turns, each in a process of its own. A ratio is the median over "
        "rounds, pair by pair, with its 95 % interval; below 1, dyninfer is faster."
    )
    return [
        *([Paragraph(lead, "lead"), Figure(baselines_chart(found.ratios))] if found.ratios else ()),
        tables.ratios_table(found),
        tables.contenders_table(found),
        tables.memory_table(found),
        tables.reasons_table("Baselines that could not be run", "baseline", found.unavailable),
    ]


def _model(record: BenchRecord) -> Blocks | str:
    found = record.model
    measured = Medium.ALL if record.energy else Medium.WIDE  # a terminal lists what is left out
    energy = Paragraph(words.energy_words(record), media=measured)
    if found is None:
        reason = words.why_missing(record, ("model",), "no latency model was fitted")
        if record.energy is None:
            return f"{reason} {energy.text}"
        return [Paragraph(f"No latency model: {reason}", media=Medium.WIDE), energy]
    return [
        *map(Paragraph, filter(None, (words.model_words(found), words.break_even_words(record)))),
        energy,
        *([Figure(model_chart(found.checks))] if found.checks else ()),
        tables.steps_table(found),
        tables.checks_table(found),
    ]
