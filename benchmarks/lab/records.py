"""What measurements of the laboratory write down, each with its command and its machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dyninfer.benchmarks.machine.describe import describe_machine
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import DyninferError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def record_of(
    what: str, command: Iterable[str], rows: Sequence[DataclassInstance], **also: Any
) -> dict[str, Any]:
    """A record.

    Args:
        what: was measured, in a sentence.
        command: the module of the laboratory, and its arguments.
        rows: what came of it.
        also: what else there is to say.
    """
    return {
        "what": what,
        "command": f"python -m dyninfer.benchmarks.lab.{' '.join(command)}",
        **also,
        "machine": asdict(describe_machine()),
        "rows": [asdict(row) for row in rows],
    }


def measure_into(output: Path | None, measure: Callable[[], dict[str, Any]]) -> None:
    """Write the record that ``measure`` gives, if a file is named; an error of ours is one line."""
    try:
        record = measure()
    except DyninferError as error:
        Terminal(stderr=True).print(f"error: {error}")
        raise typer.Exit(1) from None
    if output is not None:
        write_atomically(output, json.dumps(record, indent=1).encode() + b"\n")
