"""What a suite found on a GPU: a JSON file that grows with every test, and a table of it."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dyninfer.benchmarks.machine.describe import describe_machine
from dyninfer.engines.trt.cuda import open_cuda
from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.errors import BackendUnavailable

REPORT = "DYNINFER_GPU_REPORT"
"""Names the file; where it is set, one is kept."""
FIGURE = "figure:"
"""How the name of a recorded property begins that belongs to the figures of the whole GPU."""
_WORDS = {"passed": "settled", "failed": "BROKEN", "skipped": "open"}


class Report:
    """Written anew after every test, so that a run that is stopped leaves what it found."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._machine = machine_here()
        self._tests: dict[str, dict[str, Any]] = {}
        self._figures: dict[str, float] = {}

    def add(self, item: pytest.Item, report: Any) -> None:
        """Note what came of a test."""
        if report.when != "call" and report.outcome == "passed":
            return
        reason = str(report.longrepr[2]) if report.skipped else ""
        if report.failed:
            reason = str(report.longrepr).splitlines()[-1]
        known = dict(item.user_properties)
        figures = {n.removeprefix(FIGURE): v for n, v in known.items() if n.startswith(FIGURE)}
        self._figures = figures | self._figures  # of two libraries that of the first
        test = getattr(item, "function", None)
        self._tests[item.name] = {
            "settles": (test.__doc__ or "").strip().split("\n")[0] or _spoken(item.name),
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
            "reason": reason,
            **{name: value for name, value in known.items() if not name.startswith(FIGURE)},
        }
        self.write()

    def write(self) -> None:
        """Write the file."""
        counts = [entry["outcome"] for entry in self._tests.values()]
        content = {
            "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": self._machine,
            "passed": counts.count("passed"),
            "failed": counts.count("failed"),
            "skipped": counts.count("skipped"),
            "figures": self._figures,
            "tests": self._tests,
        }
        self._path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _spoken(name: str) -> str:
    return name.partition("[")[0].removeprefix("test_").replace("_", " ")


def machine_here() -> dict[str, Any]:
    """The GPU, the driver and the libraries."""
    machine: dict[str, Any] = {"system": platform.platform(), "python": platform.python_version()}
    try:
        opened = open_cuda(0)
        found, here = opened.properties, describe_machine()
        machine |= {
            "gpu": found.name,
            "compute_capability": found.capability,
            "multiprocessors": found.multiprocessors,
            "memory_gib": found.memory_gib,
            "driver": here.nvidia_driver,
            "driver_cuda": here.cuda_driver,
            "cuda_package": opened.package,
        }
    except BackendUnavailable as error:
        machine["gpu"] = str(error)
    for known in Flavour:
        try:
            machine[known.value] = load_library(known).version
        except BackendUnavailable as error:
            machine[known.value] = str(error)
    return machine


def table(report: Mapping[str, Any]) -> str:
    """What was settled, what broke, and what stays open, with the reason."""
    lines = []
    for name, entry in report["tests"].items():
        ground = name.partition("[")[2].removesuffix("]")
        what = f"{entry['settles'].rstrip('.')} ({ground})" if ground else entry["settles"]
        word = _WORDS[entry["outcome"]]
        why = "" if entry["outcome"] == "passed" else f": {entry['reason']}"
        lines.append(f"{word:8} {entry['seconds']:6.1f} s  {what}{why}")
    counts = ", ".join(f"{report[key]} {key}" for key in ("passed", "failed", "skipped"))
    return "\n".join([f"on {report['machine']['gpu']}: {counts}", *lines])
