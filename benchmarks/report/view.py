"""From a record to what the page shows; pure."""

from __future__ import annotations

from dyninfer.benchmarks.latency.record import BenchRecord, PicturesRecord
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.report import page, words
from dyninfer.benchmarks.report.baselines import baselines_chart
from dyninfer.benchmarks.report.comparison_tables import (
    checks_table,
    contenders_table,
    memory_table,
    ratios_table,
    reasons_table,
    steps_table,
)
from dyninfer.benchmarks.report.conditions import conditions_of
from dyninfer.benchmarks.report.distributions import panels
from dyninfer.benchmarks.report.easiness import easiness_chart
from dyninfer.benchmarks.report.figures import counted, percent
from dyninfer.benchmarks.report.model_chart import model_chart
from dyninfer.benchmarks.report.settings import start_of
from dyninfer.benchmarks.report.spans import kinds_of, patterns, spans_chart, swatch
from dyninfer.benchmarks.report.speed_accuracy import speed_accuracy
from dyninfer.benchmarks.report.svg import Chart
from dyninfer.benchmarks.report.tables import (
    Table,
    exits_table,
    latency_table,
    spans_table,
)

_STAND_IN = "measured without real pictures, so an easiness would say nothing"


def page_of(record: BenchRecord) -> page.Page:
    """Everything that the page shows."""
    sections = (
        page.Section("curve", "Accuracy against speed", _speed_accuracy(record)),
        page.Section("easiness", "How easy the pictures are", _easiness(record)),
        page.Section("spans", "Where the time goes", _spans(record)),
        page.Section("latency", "Latency", _latency(record)),
        page.Section("baselines", "Against the baselines", _baselines(record)),
        page.Section("model", "Latency model and energy", _model(record)),
        page.Section("conditions", "Machine, command, words", conditions_of(record)),
    )
    footer = f"Written by {record.written_by}, record of {record.started_utc}."
    return page.Page(_headline(record), sections, footer)


def _headline(record: BenchRecord) -> page.Headline:
    measured = record.measured
    facts = (
        ("engine", words.engine_words(record)),
        ("device", measured.device),
        ("precision", words.precision_words(record)),
        ("input", words.inputs_words(record)),
        ("exits", f"{measured.exits}; policy: {measured.policy}"),
        ("pictures", words.pictures_words(record)),
    )
    return page.Headline(
        measured.bundle, words.result_sentence(record), facts, tuple(words.warnings(record))
    )


def _speed_accuracy(record: BenchRecord) -> page.SpeedAccuracy | str:
    if not record.pictures.curve:
        keys = ("curve", "pictures.curve", "pictures")
        return words.why_missing(record, keys, _why_no_curve(record))
    return speed_accuracy(record)


def _why_no_curve(record: BenchRecord) -> str:
    if record.measured.exits == 1:
        return "the bundle has one exit, so there is nothing to route"
    return _STAND_IN


def _easiness(record: BenchRecord) -> page.Easiness | str:
    pictures = record.pictures
    if not any(pictures.easiness):
        keys = ("easiness", "pictures.easiness", "curve", "pictures")
        return words.why_missing(record, keys, _why_no_curve(record))
    thresholds = [point.threshold for point in pictures.curve]
    start = start_of(pictures.curve) if pictures.curve else 0
    charts = [
        easiness_chart(values, router, thresholds, start)
        for router, values in enumerate(pictures.easiness)
    ]
    return page.Easiness(tuple(charts), tuple(_unknown_notes(pictures)))


def _unknown_notes(pictures: PicturesRecord) -> list[str]:
    return [
        f"Without a number (NaN) by the router of exit {router}: "
        f"{counted(values.count(None), 'image')}, counted as hard and not in the chart."
        for router, values in enumerate(pictures.easiness)
        if None in values
    ]


def closed_loop(record: BenchRecord) -> list[ScenarioResult]:
    """Scenarios whose calls follow each other."""
    return [result for result in record.scenarios if result.scenario.rate_per_s is None]


def _spans(record: BenchRecord) -> page.Spans | str:
    results = [result for result in closed_loop(record) if result.spans]
    if not results:
        return words.why_missing(record, ("spans",), "no closed-loop scenario was measured")
    legend = tuple((swatch(kind), kind.value) for kind in kinds_of(results))
    tables = tuple(spans_table(result) for result in results)
    return page.Spans(spans_chart(results), patterns(), legend, tables)


def _latency(record: BenchRecord) -> page.Latency | str:
    if not record.scenarios:
        return words.why_missing(record, ("scenarios",), "no scenario was measured")
    fixed = any(result.scenario.rate_per_s is not None for result in record.scenarios)
    reason = words.why_missing(record, ("fixed_rate", "rate"), "no rate was asked for")
    note = "" if fixed else f"There is no scenario at a fixed rate: {reason}"
    drawn = panels([result for result in record.scenarios if any(result.rounds_ms)])
    return page.Latency(
        latency_table(record.scenarios), _filled(exits_table(record.scenarios)), tuple(drawn), note
    )


def _filled(*tables: Table) -> tuple[Table, ...]:
    return tuple(table for table in tables if table.rows)


def _baselines(record: BenchRecord) -> page.AgainstBaselines | str:
    found = record.baselines
    if found is None:
        return words.why_missing(record, ("baselines",), "no baselines were asked for")
    chart = baselines_chart(found.ratios) if found.ratios else None
    absent = reasons_table("Baselines that could not be run", "baseline", found.unavailable)
    tables = _filled(ratios_table(found), contenders_table(found), memory_table(found), absent)
    return page.AgainstBaselines(chart, tables, ())


def _model(record: BenchRecord) -> page.Model | str:
    energy = words.energy_words(record)
    found = record.model
    if found is None:
        reason = words.why_missing(record, ("model",), "no latency model was fitted")
        if record.energy is None:
            return f"{reason} {energy}"
        return page.Model(None, (f"No latency model: {reason}", energy), ())
    held_out = sum(check.held_out for check in found.checks)
    over = (
        f"{counted(held_out, 'scenario')} that {'was' if held_out == 1 else 'were'} held out"
        if held_out
        else f"{counted(len(found.checks), 'scenario')}, all of which it was fitted on"
    )
    noise = (
        ""
        if found.mean_noise is None
        else f"; what was measured of them is itself known to within {percent(found.mean_noise, 1)}"
    )
    error = f"The model is off by {percent(found.mean_error, 1)} on average over {over}{noise}."
    sentences = tuple(s for s in (error, words.break_even_words(record), energy) if s)
    chart: Chart | None = model_chart(found.checks) if found.checks else None
    return page.Model(chart, sentences, _filled(steps_table(found), checks_table(found)))
