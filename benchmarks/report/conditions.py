"""Everything under which a record's figures were taken."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import BenchRecord, StageInfo
from dyninfer.benchmarks.machine import MachineLog, machine_rows
from dyninfer.benchmarks.report.figures import ABSENT, memory, ms, number, readable
from dyninfer.benchmarks.report.table import (
    Block,
    Code,
    Medium,
    PageBlock,
    Pairs,
    Paragraph,
    Table,
    TextPairs,
    column,
    make_table,
)
from dyninfer.benchmarks.report.tables import reasons_table
from dyninfer.plain_text import counted

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
_TOOLS = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
_NAMED = 3


class Glossary(PageBlock):
    """What the words of a report mean."""


def facts(record: BenchRecord) -> TextPairs:
    """What was measured, on what, with what."""
    measured, load = record.measured, record.machine.load_average_1min
    inputs = ", ".join(f"{name} {size}" for name, size in measured.image_inputs.items())
    took = f"{number(record.seconds)} s"
    tool = _TOOLS.get(measured.backend, measured.backend)
    provider = f", provider {measured.provider}" if measured.provider else ""
    branches = measured.ways[0].startswith("branch")
    ways = f"{measured.exits} branches" if branches else counted(measured.exits, "exit")
    return (
        ("model", f"{measured.family}, {ways}, {inputs}"),
        ("as routed by", measured.policy if measured.exits > 1 else "one way for all images"),
        ("engine", f"{tool} {measured.backend_version}{provider}"),
        ("precision", precision_words(record)),
        ("device", measured.device),
        ("pictures", pictures_words(record)),
        ("system", f"{record.machine.system}, load {'unknown' if load is None else f'{load:g}'}"),
        ("largest resident memory", memory(record.peak_memory_mib)),
        ("run", f"{record.started_utc}, {took}; engines timed by {record.clock}"),
    )


def precision_words(record: BenchRecord) -> str:
    """The precision of all stages, or of each where they differ."""
    stages = record.measured.stages
    kinds = list(dict.fromkeys(stage.precision for stage in stages))
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{stage.name} {stage.precision}" for stage in stages)


def pictures_words(record: BenchRecord) -> str:
    """What was run, and the sizes of it."""
    pictures = record.pictures
    sizes = sorted(pictures.sizes.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{size} ({count:,})" for size, count in sizes[:_NAMED])
    more = f" and {counted(len(sizes) - _NAMED, 'other size')}" if len(sizes) > _NAMED else ""
    listed = f"; height x width {shown}{more}" if sizes else ""
    if len(sizes) == 1:
        only = sizes[0][0]
        listed = "" if only in pictures.what else f"; all {only} (height x width)"
    return f"{pictures.in_words}{listed}"


def conditions_of(record: BenchRecord) -> tuple[Block, ...]:
    """The last section: how to run it again, the machine, and what the words mean."""
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
        Glossary(),
    )


def stages_table(stages: Sequence[StageInfo]) -> Table:
    """Size of every stage."""
    return make_table(
        "Stages",
        column("stage", (stage.name for stage in stages), words=True),
        column("role", (stage.role for stage in stages), words=True),
        column("precision", (stage.precision for stage in stages), words=True),
        column("parameters", (_count(stage.parameters) for stage in stages)),
        column("multiply-adds", (_count(stage.macs) for stage in stages)),
        media=Medium.PAGE,
    )


def _count(count: int | None) -> str:
    return ABSENT if count is None else readable(count)


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
    return reasons_table("Not measured", "what", reasons, Medium.PAGE)


def left_out(record: BenchRecord) -> TextPairs:
    """Parts of the record that are not there, and why."""
    return tuple((name.replace("_", " "), why) for name, why in record.missing.items())
