"""What is shown of a record, without showing it."""

from __future__ import annotations

from collections.abc import Iterable

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.report import comparison_tables, tables, words
from dyninfer.benchmarks.report.baselines import baselines_chart
from dyninfer.benchmarks.report.conditions import conditions_of, left_out
from dyninfer.benchmarks.report.distributions import panels
from dyninfer.benchmarks.report.figures import counted
from dyninfer.benchmarks.report.model_chart import model_chart
from dyninfer.benchmarks.report.page import Figure, Folded, Legend, Page, Panels, Section
from dyninfer.benchmarks.report.selected import closed_loop, forced_ends, mixture
from dyninfer.benchmarks.report.spans import kinds_of, patterns, spans_chart, swatch
from dyninfer.benchmarks.report.speed_accuracy import easiness_charts, speed_accuracy
from dyninfer.benchmarks.report.table import Block, Medium, Paragraph, Table

Blocks = Iterable[Block]
_STAND_IN = "measured without real pictures, so an easiness would say nothing"


def page_of(record: BenchRecord) -> Page:
    """Everything that is shown."""
    return Page(
        title=record.measured.bundle,
        sentence=words.result_sentence(record),
        facts=words.facts(record),
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
        keys = ("curve", "pictures.curve", "pictures")
        return words.why_missing(record, keys, _why_no_curve(record))
    return [speed_accuracy(record), tables.curve_table(tables.thinned(curve), Medium.TEXT)]


def _why_no_curve(record: BenchRecord) -> str:
    if record.measured.exits == 1:
        return "the bundle has one exit, so there is nothing to route"
    return _STAND_IN


def _easiness(record: BenchRecord) -> Blocks | str:
    pictures = record.pictures
    if not any(pictures.easiness):
        keys = ("easiness", "pictures.easiness", "curve", "pictures")
        return words.why_missing(record, keys, _why_no_curve(record))
    several = len(pictures.easiness) > 1
    charts = [
        Figure(drawn.chart, f"Router of exit {router}" if several else "")
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
    results = [result for result in closed_loop(record) if result.spans]
    if not results:
        return words.why_missing(record, ("spans",), "no closed-loop scenario was measured")
    lead = (
        "Mean milliseconds per image in a closed loop. A step that only some images go through "
        "counts by how many did, so that a bar adds up to the time per image."
    )
    marks = tuple((swatch(kind), kind.value) for kind in kinds_of(results))
    return [
        Paragraph(lead, "lead", media=Medium.PAGE),
        Legend(patterns(), marks),
        Figure(spans_chart(results)),
        tables.kinds_table(results, Medium.MARKDOWN),
        *(tables.spans_table(end, Medium.TERMINAL) for end in forced_ends(record.scenarios)),
        Folded("Every step as a table", tuple(tables.spans_table(result) for result in results)),
    ]


def _latency(record: BenchRecord) -> Blocks | str:
    results = record.scenarios
    if not results:
        return words.why_missing(record, ("scenarios",), "no scenario was measured")
    fixed = any(result.scenario.rate_per_s is not None for result in results)
    reason = words.why_missing(record, ("fixed_rate", "rate"), "no rate was asked for")
    note = "" if fixed else f" There is no scenario at a fixed rate: {reason}"
    by_exit, mixed = tables.exits_table(results), mixture(results)
    drawn = panels([result for result in results if any(result.rounds_ms)])
    about = (
        "Every further nine has the same room, so that tails can be seen. Lines end at the slowest "
        "call."
    )
    return [
        tables.latency_table(results),
        Paragraph(words.footnote(results), media=Medium.TERMINAL),
        Paragraph(f"With a figure: its 95 % interval.{note}", "note", media=Medium.WIDE),
        *([tables.exits_table([mixed], Medium.TEXT)] if mixed else ()),
        *([Folded("By exit, as a table", (by_exit,))] if by_exit.rows else ()),
        *([Panels("Share of calls up to a latency", about, tuple(drawn))] if drawn else ()),
    ]


def _baselines(record: BenchRecord) -> Blocks | str:
    found = record.baselines
    if found is None:
        return words.why_missing(record, ("baselines",), "no baselines were asked for")
    lead = (
        "All contenders ran in turns in one run. A ratio is the median over rounds, pair by pair, "
        "with its 95 % interval; below 1, dyninfer is faster."
    )
    return [
        *([Paragraph(lead, "lead"), Figure(baselines_chart(found.ratios))] if found.ratios else ()),
        comparison_tables.ratios_table(found),
        comparison_tables.contenders_table(found),
        comparison_tables.memory_table(found),
        comparison_tables.reasons_table(
            "Baselines that could not be run", "baseline", found.unavailable
        ),
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
        *map(Paragraph, filter(None, (words.model_words(found), words.break_even_words(found)))),
        energy,
        *([Figure(model_chart(found.checks))] if found.checks else ()),
        comparison_tables.steps_table(found),
        comparison_tables.checks_table(found),
    ]
