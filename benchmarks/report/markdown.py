"""A record as Markdown, for a pull request or a README. Needs nothing but the standard library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dyninfer.benchmarks.latency.record import BenchRecord, ThresholdPoint
from dyninfer.benchmarks.report.comparison_tables import (
    memory_table,
    ratios_table,
    reasons_table,
)
from dyninfer.benchmarks.report.page import AgainstBaselines, Model, Section
from dyninfer.benchmarks.report.tables import (
    Cell,
    Table,
    curve_table,
    kinds_table,
    latency_table,
)
from dyninfer.benchmarks.report.view import closed_loop, page_of

_CURVE_ROWS = 9
_SPECIAL = re.compile(r"([\\`*\[\]<>|#~&$!])|(?<![^\W_])(_)|(_)(?![^\W_])")
_BREAKS = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029\ud800-\udfff]+")


def to_markdown(record: BenchRecord) -> str:
    """A record as Markdown with GitHub's tables; text that comes from the record is escaped."""
    page = page_of(record)
    sections = {section.key: section for section in page.sections}
    blocks = [
        f"## dyninfer bench: {escaped(page.headline.title)}",
        escaped(page.headline.sentence),
        _list(f"**{escaped(name)}**: {escaped(value)}" for name, value in page.headline.facts),
    ]
    if page.headline.warnings:
        blocks += ["Be careful with these figures:", _list(map(escaped, page.headline.warnings))]
    blocks += _curve(record, sections["curve"])
    blocks += _spans(record, sections["spans"])
    blocks += _latency(record, sections["latency"])
    blocks += _baselines(record, sections["baselines"])
    blocks += _model(sections["model"])
    blocks += _conditions(record)
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """On one line, and such that Markdown shows it as it is."""
    flat = _BREAKS.sub(" ", text).strip()
    return _SPECIAL.sub(lambda found: "\\" + found[0], flat)


def code_block(text: str) -> str:
    """A fenced block; its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{_BREAKS.sub(' ', text).strip()}\n{fence}"


def table(data: Table) -> str:
    """A table in GitHub's Markdown; figures are right-aligned."""
    rules = ["---" if index < data.words else "---:" for index in range(len(data.columns))]
    rows = [[_cell(cell) for cell in row] for row in data.rows]
    lines = [[escaped(column) for column in data.columns], rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    value = escaped(cell.value)
    return f"{value} ({escaped(cell.detail)})" if cell.detail else value


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _title(section: Section) -> str:
    return f"### {escaped(section.title)}"


def _left_out(section: Section) -> list[str]:
    return [_title(section), f"Not in this record: {escaped(str(section.content))}"]


def spread(curve: Sequence[ThresholdPoint], most: int = _CURVE_ROWS) -> list[ThresholdPoint]:
    """At most ``most`` points, the two ends among them, evenly over the hard fraction."""
    if len(curve) <= most:
        return list(curve)
    low, high = curve[0].hard_fraction, curve[-1].hard_fraction
    wanted = [low + (high - low) * step / (most - 1) for step in range(1, most - 1)]
    inner = range(1, len(curve) - 1)
    near = {min(inner, key=lambda i: abs(curve[i].hard_fraction - want)) for want in wanted}
    return [curve[0], *(curve[index] for index in sorted(near)), curve[-1]]


def _curve(record: BenchRecord, section: Section) -> list[str]:
    if section.absent:
        return _left_out(section)
    return [_title(section), table(curve_table(spread(record.pictures.curve)))]


def _spans(record: BenchRecord, section: Section) -> list[str]:
    if section.absent:
        return _left_out(section)
    results = [result for result in closed_loop(record) if result.spans]
    return [_title(section), "Mean ms per image, closed loop:", table(kinds_table(results))]


def _latency(record: BenchRecord, section: Section) -> list[str]:
    if section.absent:
        return _left_out(section)
    note = "In brackets: 95 % intervals."
    return [_title(section), table(latency_table(record.scenarios)), note]


def _baselines(record: BenchRecord, section: Section) -> list[str]:
    if not isinstance(section.content, AgainstBaselines) or record.baselines is None:
        return _left_out(section)
    found = record.baselines
    blocks = [_title(section)]
    if found.ratios:
        explained = "Time of dyninfer over the baseline's, medians over rounds; below 1, dyninfer"
        blocks += [f"{explained} is faster.", table(ratios_table(found))]
    if found.memory:
        blocks.append(table(memory_table(found)))
    if found.unavailable:
        blocks.append(table(reasons_table("", "not run", found.unavailable)))
    return blocks


def _model(section: Section) -> list[str]:
    if not isinstance(section.content, Model):
        return _left_out(section)
    return [_title(section), *map(escaped, section.content.sentences)]


def _conditions(record: BenchRecord) -> list[str]:
    machine = record.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    rows = (
        ("machine", f"{machine.cpu}, {machine.usable_cores} cores, {machine.system}"),
        ("versions", f"{machine.python}; {versions}"),
        ("run", f"{record.started_utc}, {record.seconds:.0f} s, {record.written_by}"),
        ("manifest's SHA-256", record.measured.manifest_sha256),
    )
    listed = _list(f"**{name}**: {escaped(value)}" for name, value in rows)
    return ["### Machine and command", listed, code_block(record.command)]
