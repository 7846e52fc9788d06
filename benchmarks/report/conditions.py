"""Everything under which a record's figures were taken, and what its words mean."""

from __future__ import annotations

from dyninfer.benchmarks.latency.record import BenchRecord
from dyninfer.benchmarks.machine import machine_rows
from dyninfer.benchmarks.report import page, words
from dyninfer.benchmarks.report.condition_tables import (
    missing_table,
    readings_table,
    stages_table,
)
from dyninfer.benchmarks.report.figures import memory, ms, number

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


def conditions_of(record: BenchRecord) -> page.Conditions:
    """The last section."""
    tables = [
        stages_table(record.measured.stages),
        readings_table(record.log),
        missing_table(record),
    ]
    return page.Conditions(
        machine=tuple(machine_rows(record.machine)),
        run=_run_rows(record),
        command=record.command,
        tables=tuple(table for table in tables if table.rows),
        notes=_notes(record),
        glossary=_GLOSSARY,
    )


def _run_rows(record: BenchRecord) -> page.Rows:
    measured = record.measured
    return (
        ("bundle", f"{measured.bundle} ({measured.family})"),
        ("manifest's SHA-256", measured.manifest_sha256),
        ("engine", words.engine_words(record)),
        ("device", measured.device),
        ("started, UTC", record.started_utc),
        ("took", f"{number(record.seconds)} s"),
        ("engines' clock", record.clock),
        ("largest resident memory", memory(record.peak_memory_mib)),
        ("yardstick", f"{ms(record.yardstick.median_ms)}: {record.yardstick.what}"),
        ("written by", record.written_by),
    )


def _notes(record: BenchRecord) -> tuple[str, ...]:
    return tuple(f"Throttled: {reason}." for reason in record.log.throttled)
