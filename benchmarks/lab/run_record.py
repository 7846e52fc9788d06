"""What the record of every benchmark module begins with."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dyninfer.benchmarks.machine import Machine, load_average
from dyninfer.bundle.folder import write_atomically

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunRecord:
    """Which benchmark ran, by which command, when and on what.

    ``machine`` is described before the benchmark starts; ``load_average_after_1min`` is taken at
    its end.
    """

    schema_version: int
    benchmark: str
    command: str
    finished_utc: str
    machine: Machine
    load_average_after_1min: float | None


def ended_run(module: str, machine: Machine) -> dict[str, Any]:
    """The fields of :class:`RunRecord` for a run of ``module`` that has just ended."""
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": module.rpartition(".")[2],
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "finished_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "load_average_after_1min": load_average(),
    }


def write_run(record: RunRecord, path: Path) -> None:
    """Write a record as JSON, in one step; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")
