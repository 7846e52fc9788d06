"""Everything under which a record's figures were taken, and what its words mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dyninfer.benchmarks.latency.record import BenchRecord, StageInfo
from dyninfer.benchmarks.machine import MachineLog, machine_rows
from dyninfer.benchmarks.report.comparison_tables import reasons_table
from dyninfer.benchmarks.report.figures import ABSENT, counted, ms, number
from dyninfer.benchmarks.report.table import (
    Block,
    Code,
    Medium,
    Pairs,
    Paragraph,
    Table,
    TextPairs,
    column,
    make_table,
)

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
_GLOSSARY = (
    (
        "easiness",
        "A router's output from 0 to 1. An image goes on to the next exit when its easiness is "
        "below the threshold; one that is equal to it leaves.",
    ),
    ("hard fraction", "The share of images that reach the last exit."),
    (
        "closed loop",
        "Each call starts when the one before has ended; a slow call delays the next and hides "
        "how long that would have waited.",
    ),
    (
        "fixed rate, due time",
        "Calls arrive on a schedule, whatever the detector is busy with. Latency counts from the "
        "moment a call was due, so that waiting is in it; a call is late if it could not start "
        "then.",
    ),
    (
        "p50 ... p99.9",
        "The time that 50 ... 99.9 % of the calls did not exceed. Where too few calls support a "
        "percentile, it is left out.",
    ),
    (
        "interval",
        "Where the figure would lie in 95 of 100 repetitions: a bootstrap over rounds, each of "
        "which ran everything in turns.",
    ),
    ("ms when run", "Mean over the images that went through a step, not over all."),
)


def conditions_of(record: BenchRecord) -> tuple[Block, ...]:
    """The last section."""
    machine = record.machine
    run = (
        ("manifest's SHA-256", record.measured.manifest_sha256),
        ("yardstick", f"{ms(record.yardstick.median_ms)}: {record.yardstick.what}"),
        ("written by", record.written_by),
    )
    in_short = (
        ("processor", f"{machine.cpu}, {counted(machine.usable_cores, 'core')}"),
        ("Python", machine.python),
        ("versions", ", ".join(f"{name} {value}" for name, value in machine.versions.items())),
    )
    throttled = (f"Throttled: {reason}." for reason in record.log.throttled)
    tables = (
        stages_table(record.measured.stages),
        readings_table(record.log),
        missing_table(record),
    )
    return (
        Code("To run it again", record.command, media=Medium.WIDE),
        Pairs("Run", run, media=Medium.WIDE),
        Pairs("Machine", in_short, media=Medium.MARKDOWN),
        Pairs("Machine", tuple(machine_rows(machine)), media=Medium.PAGE),
        *(Paragraph(text, "note", media=Medium.PAGE) for text in throttled),
        *(table for table in tables if table.rows),
        Pairs("Words", _GLOSSARY, media=Medium.PAGE),
    )


def stages_table(stages: Sequence[StageInfo]) -> Table:
    """Size of every stage."""
    return make_table(
        "Stages",
        column("stage", (stage.name for stage in stages), words=True),
        column("role", (stage.role for stage in stages), words=True),
        column("precision", (stage.precision for stage in stages), words=True),
        column("parameters, millions", (_millions(stage.parameters) for stage in stages)),
        column("multiply-adds, millions", (_millions(stage.macs) for stage in stages)),
        media=Medium.PAGE,
    )


def _millions(count: int | None) -> str:
    return ABSENT if count is None else number(count / 1e6)


def readings_table(log: MachineLog) -> Table:
    """What was sampled while the benchmark ran."""
    found = log.readings.values()
    return make_table(
        "Sampled while it ran",
        column("reading", map(reading_words, log.readings), words=True),
        column("lowest", (number(reading.low) for reading in found)),
        column("median", (number(reading.median) for reading in found)),
        column("highest", (number(reading.high) for reading in found)),
        column("drift", (_signed(log.drift.get(name)) for name in log.readings)),
        media=Medium.PAGE,
    )


def _signed(value: float | None) -> str:
    return ABSENT if value is None else f"{'+' if value > 0 else ''}{number(value)}"


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
    unread = {reading_words(name): why for name, why in record.log.missing.items()}
    reasons = {**dict(left_out(record)), **record.machine.missing, **unread}
    return replace(reasons_table("Not measured", "what", reasons), media=Medium.PAGE)


def left_out(record: BenchRecord) -> TextPairs:
    """Parts of the record that are not there, and why."""
    return tuple((name.replace("_", " "), why) for name, why in record.missing.items())
