"""What was measured of the speed limits: the file that it is left in, and it as a table."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.machine import Machine, MachineLog, load_average
from dyninfer.benchmarks.report.documents import table_text
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.bundle.documents import first_problem
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import RatioEstimate
from dyninfer.plain_text import counted, plain

SCHEMA_VERSION = 1
MODULE = "dyninfer.benchmarks.lab.limits"


@dataclass(frozen=True)
class LimitResult:
    """A figure that the project wants to stay below.

    Attributes:
        key: short name of the row, for example ``preprocessing``.
        what: what is compared with what, in words.
        limit: the figure is to be at most this.
        measured: median over rounds with its 95 % interval.
        times_ms: every time by contender, in the order of the rounds.
        note: how it was measured; where the limit is missed, why.
        unit: of ``limit`` and ``measured``: ``ratio`` or ``microseconds``.
    """

    key: str
    what: str
    limit: float
    measured: RatioEstimate
    times_ms: Mapping[str, Sequence[float]]
    note: str = ""
    unit: str = "ratio"

    @property
    def holds(self) -> bool:
        """Whether the median is within the limit."""
        return self.measured.median <= self.limit


@dataclass(frozen=True)
class LimitsRecord:
    """Which limits were measured, by which command, when and on what.

    Attributes:
        machine: as it was before.
        load_average_after_1min: taken at the end.
        log: how the machine fared meanwhile.
        model: of the limits that need a full-size one.
        results: one for every row.
        failures: group that could not be measured -> why.
    """

    schema_version: int
    benchmark: str
    command: str
    finished_utc: str
    machine: Machine
    load_average_after_1min: float | None
    log: MachineLog
    model: str
    results: tuple[LimitResult, ...]
    failures: Mapping[str, str] = field(default_factory=dict)


def ended_run() -> dict[str, Any]:
    """What a record says of a run that has just ended."""
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": MODULE.rpartition(".")[2],
        "command": shlex.join(["python", "-m", MODULE, *sys.argv[1:]]),
        "finished_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_average_after_1min": load_average(),
    }


def write_limits(record: LimitsRecord, path: Path) -> None:
    """Write a record as JSON, in one step; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")


def read_limits(path: Path) -> LimitsRecord:
    """Read a record.

    Raises:
        InputError: the file is missing, or is not such a record.
    """
    try:
        return TypeAdapter(LimitsRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(
            f"{path} is not a record of the limits: {first_problem(error)}; expected what "
            f"python -m {MODULE} --output wrote"
        ) from None


def limits_table(record: LimitsRecord) -> Table:
    """A row for each limit; what was measured and where is its title."""
    results, machine = record.results, record.machine
    intervals = (f"{_figure(r, r.measured.low)} to {_figure(r, r.measured.high)}" for r in results)
    return make_table(
        f"{record.model}; {machine.cpu}, {counted(machine.usable_cores, 'core')}; "
        f"onnxruntime {machine.versions.get('onnxruntime', '?')}",
        column("limit", (result.key for result in results), words=True),
        column("at most", (f"{result.limit:.3g}{_unit(result)}" for result in results)),
        column("measured", (_figure(r, r.measured.median) + _unit(r) for r in results)),
        column("95 % interval", intervals),
        column("", ("met" if result.holds else "missed" for result in results), words=True),
    )


def _unit(result: LimitResult) -> str:
    return " µs" if result.unit == "microseconds" else ""


def _figure(result: LimitResult, value: float) -> str:
    return f"{value:.0f}" if result.unit == "microseconds" else f"{value:.3f}"


def _notes(record: LimitsRecord) -> list[tuple[str, str]]:
    """What each row compares, and what could not be measured."""
    compared = [(result.key, f": {result.what}. {result.note}") for result in record.results]
    return compared + [
        (name, f" could not be measured: {why}") for name, why in record.failures.items()
    ]


def print_limits(record: LimitsRecord, terminal: Terminal) -> None:
    """Show a record in a terminal."""
    print_table(limits_table(record), terminal)
    for name, note in _notes(record):
        terminal.print(name + note)


def limits_markdown(record: LimitsRecord) -> str:
    """A record as a Markdown table, with its notes as a list."""
    table = limits_table(record)
    notes = "\n".join(plain(f"- `{name}`{note}") for name, note in _notes(record))
    return f"**{table.title}**\n\n{table_text(table)}\n\n{notes}"
