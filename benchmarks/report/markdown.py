"""A record as Markdown, for a pull request or a README. Needs nothing but the standard library."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.report.page import Section
from dyninfer.benchmarks.report.table import (
    Block,
    Cell,
    Code,
    Medium,
    Pairs,
    Paragraph,
    Table,
    TextPairs,
)
from dyninfer.benchmarks.report.view import page_of

_SPECIAL = re.compile(r"([\\`*\[\]<>|#~&$!])|(?<![^\W_])(_)|(_)(?![^\W_])")
_BREAKS = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029\ud800-\udfff]+")


def to_markdown(record: BenchRecord) -> str:
    """A record as Markdown with GitHub's tables; text that comes from the record is escaped."""
    page = page_of(record)
    parts = [
        f"## dyninfer bench: {escaped(page.title)}",
        escaped(page.sentence),
        _pairs(page.facts),
    ]
    if page.warnings:
        parts += ["Be careful with these figures:", _list(map(escaped, page.warnings))]
    for section in page.sections:
        if Medium.MARKDOWN in section.media:
            parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"### {escaped(section.title)}"]
    if section.absent:
        return [*parts, f"Not in this record: {escaped(section.absent)}"]
    return [*parts, *map(block_text, section.shown_in(Medium.MARKDOWN))]


def block_text(block: Block) -> str:
    """A table, a paragraph, pairs or a command."""
    if isinstance(block, Table):
        return f"{_heading(block.title)}{table_text(block)}"
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Pairs):
        return f"{_heading(block.title)}{_pairs(block.pairs)}"
    assert isinstance(block, Code), f"Markdown has no {block.kind}"
    return f"{_heading(block.title)}{code_block(block.text)}"


def escaped(text: str) -> str:
    """The text on one line, such that Markdown shows it as it is."""
    flat = _BREAKS.sub(" ", text).strip()
    return _SPECIAL.sub(lambda found: "\\" + found[0], flat)


def code_block(text: str) -> str:
    """A fenced block; its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{_BREAKS.sub(' ', text).strip()}\n{fence}"


def table_text(table: Table) -> str:
    """A table in GitHub's Markdown, without its title; figures are right-aligned."""
    shown = table.shown_in(Medium.MARKDOWN)
    names = [escaped(column.name) for column in shown.columns]
    rules = ["---" if column.words else "---:" for column in shown.columns]
    lines = [names, rules, *([_cell(cell) for cell in row] for row in shown.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    value = escaped(cell.text)
    return f"{value} ({escaped(cell.detail)})" if cell.detail else value


def _heading(title: str) -> str:
    return f"**{escaped(title)}**\n\n" if title else ""


def _pairs(pairs: TextPairs) -> str:
    return _list(f"**{escaped(name)}**: {escaped(value)}" for name, value in pairs)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
