"""A record as one HTML file that needs nothing else: no network, no storage, no libraries."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.report.table import Medium
from dyninfer.benchmarks.report.view import page_of
from dyninfer.bundle.folder import write_atomically
from dyninfer.errors import MissingExtra

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"


def write_html(record: BenchRecord, path: Path) -> None:
    """Write a record as a page, in one step.

    Raises:
        MissingExtra: Jinja is not installed.
        OSError: the file cannot be written.
    """
    write_atomically(path, to_html(record))


def to_html(record: BenchRecord) -> str:
    """A record as a page.

    Everything that comes from the record is escaped. A Content-Security-Policy allows the one
    script and the one style sheet in the page, by their hashes, and embedded pictures: whatever
    else got in would neither run nor fetch anything.

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
    # a lone surrogate, from a file name that is no UTF-8, cannot be written
    text = template.render(
        page=page_of(record), page_medium=Medium.PAGE, style=style, script=script, policy=policy
    )
    return text.encode("utf-8", "replace").decode("utf-8")


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
        raise MissingExtra('an HTML report needs Jinja: pip install "dyninfer[report]"') from error
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
