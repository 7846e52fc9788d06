"""A record as a document: as Markdown, for a pull request or a README, or as one HTML file.

The page needs nothing else: no network, no storage, no libraries.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dyninfer.benchmarks.latency.record import BenchRecord
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
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import MissingExtra
from dyninfer.installing import pip_install
from dyninfer.plain_text import one_line, plain

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_SPECIAL = re.compile(r"([\\`*\[\]<>|#~&$!])|(?<![^\W_])(_)|(_)(?![^\W_])")


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
        if Medium.MARKDOWN not in section.media:
            continue
        parts.append(f"### {escaped(section.title)}")
        if section.absent:
            parts.append(f"Not in this record: {escaped(section.absent)}")
        parts += map(block_text, section.shown_in(Medium.MARKDOWN))
    return "\n\n".join(parts) + "\n"


def block_text(block: Block) -> str:
    """A table, a paragraph, pairs or a command."""
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Table):
        shown = table_text(block)
    elif isinstance(block, Pairs):
        shown = _pairs(block.pairs)
    else:
        assert isinstance(block, Code), f"Markdown has no {block.kind}"
        shown = code_block(block.text)
    return f"**{escaped(block.title)}**\n\n{shown}"


def escaped(text: str) -> str:
    """The text on one line, such that Markdown shows it as it is."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], one_line(text))


def code_block(text: str) -> str:
    """A fenced block; its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{one_line(text)}\n{fence}"


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


def _pairs(pairs: TextPairs) -> str:
    return _list(f"**{escaped(name)}**: {escaped(value)}" for name, value in pairs)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def write_html(record: BenchRecord, path: Path) -> None:
    """Write a record as a page, in one step.

    Raises:
        MissingExtra: Jinja is not installed.
        OSError: the file cannot be written.
    """
    write_atomically(path, to_html(record))


def to_html(record: BenchRecord) -> str:
    """A record as a page.

    Everything that comes from the record is plain and escaped. A Content-Security-Policy allows
    the one script and the one style sheet in the page, by their hashes, and embedded pictures:
    whatever else got in would neither run nor fetch anything.

    Raises:
        MissingExtra: Jinja is not installed.
    """
    environment = _environment()
    style, script = _source("page.css"), _source("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("page.html.j2")
    return template.render(
        page=page_of(record), page_medium=Medium.PAGE, style=style, script=script, policy=policy
    )


def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """As Content Security Policy Level 3, section 2.3.1, wants it."""
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest())
    return f"sha256-{digest.decode()}"


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra(f"an HTML report needs Jinja: {pip_install('report')}") from error
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=lambda value: plain(value) if type(value) is str else value,  # not Markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
