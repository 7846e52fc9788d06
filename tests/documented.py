"""Shell commands and Python snippets of the documentation, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import support

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "benchmarks/protocols/*.md")
    for path in support.ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # which also says what was
)
_BLOCK = re.compile(
    r"^```(?P<kind>\w*)\n(?P<fenced>.*?)^```$|(?P<indented>(?:^ {4}[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    is_python: bool
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """In their order."""
    for found in _BLOCK.finditer(page.read_text("utf-8")):
        yield Block(found["kind"] == "python", found["fenced"] or found["indented"])


def lines(block: Block) -> Iterator[str]:
    """Each command in one line."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield " ".join(line.split())
