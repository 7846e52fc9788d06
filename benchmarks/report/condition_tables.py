"""What a record was taken on, and what it lacks, as tables of text."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import BenchRecord, StageInfo
from dyninfer.benchmarks.machine.log import MachineLog
from dyninfer.benchmarks.report.comparison_tables import reasons_table
from dyninfer.benchmarks.report.figures import ABSENT, number
from dyninfer.benchmarks.report.tables import Row, Table, make_table, without_empty_columns

_MILLION = 1e6


def stages_table(stages: Sequence[StageInfo]) -> Table:
    """Size of every stage."""
    rows: list[Row] = [
        [
            stage.name,
            stage.role,
            stage.precision,
            number(None if stage.parameters is None else stage.parameters / _MILLION),
            number(None if stage.macs is None else stage.macs / _MILLION),
        ]
        for stage in stages
    ]
    columns = ("stage", "role", "precision", "parameters, millions", "multiply-adds, millions")
    return make_table("Stages", columns, rows, words=3)


def readings_table(log: MachineLog) -> Table:
    """What was sampled while the benchmark ran."""
    rows: list[Row] = [
        [
            reading_words(name),
            number(found.low),
            number(found.median),
            number(found.high),
            _signed(log.drift.get(name)),
        ]
        for name, found in log.readings.items()
    ]
    columns = ("reading", "lowest", "median", "highest", "drift")
    return without_empty_columns(make_table("Sampled while it ran", columns, rows))


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{'+' if value > 0 else ''}{number(value)}"


_UNITS = {
    "mhz": "MHz",
    "khz": "kHz",
    "c": "°C",
    "watts": "W",
    "mib": "MiB",
    "gib": "GiB",
    "percent": "%",
    "cores": "cores",
    "ms": "ms",
}
_ABBREVIATIONS = {"cpu": "CPU", "gpu": "GPU", "sm": "SM", "ram": "RAM"}


def reading_words(name: str) -> str:
    """``cpu_mhz`` as ``CPU, MHz``."""
    *words, last = name.split("_")
    unit = _UNITS.get(last)
    if unit is None or not words:
        words, unit = [*words, last], None
    said = " ".join(_ABBREVIATIONS.get(word, word) for word in words)
    return f"{said}, {unit}" if unit else said


def missing_table(record: BenchRecord) -> Table:
    """Every part that is not there, and why; the machine's too."""
    reasons = {name.replace("_", " "): why for name, why in record.missing.items()}
    reasons |= record.machine.missing
    reasons |= {reading_words(name): why for name, why in record.log.missing.items()}
    return reasons_table("Not measured", "what", reasons)
