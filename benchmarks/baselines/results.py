"""Times of a contest as a part of a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dyninfer.benchmarks.baselines import names as known
from dyninfer.benchmarks.baselines.contest import ContestTimes
from dyninfer.benchmarks.baselines.setup import CallKind
from dyninfer.benchmarks.latency.record import BaselineRatio, ContenderTimes
from dyninfer.evaluation.interleaved import compare, quantiles

DYNINFER = "dyninfer"


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Name -> what it is called in a record: of a file its name, unless two share that."""
    files = [name for name in names if known.is_onnx_file(name)]
    short = [Path(file).name for file in files]
    return {
        name: Path(name).name if name in files and short.count(Path(name).name) == 1 else name
        for name in names
    }


def times_of(samples: ContestTimes, ways: Sequence[str]) -> ContenderTimes:
    """Times with their median and quartiles; ``ways`` are the names of the bundle's."""
    found, entry = quantiles(samples.times_ms), samples.entry
    ours, other = "the bundle, the way forced", known.NAMES.get(entry.contender, "another detector")
    what = ours if entry.contender == DYNINFER else other
    return ContenderTimes(
        name=entry.name,
        what=what + ("; outputs left in buffers" if entry.call is CallKind.ENGINES else ""),
        side=ways[samples.way],
        times_ms=samples.times_ms,
        median_ms=found.median_ms,
        p25_ms=found.p25_ms,
        p75_ms=found.p75_ms,
        idle_cpu_ms=samples.idle_cpu_ms,
    )


def ratios_of(samples: Sequence[ContestTimes], ways: Sequence[str]) -> tuple[BaselineRatio, ...]:
    """Our time over each other's with the same kind of call, pair by pair."""
    ours = {
        (found.way, found.entry.call): found
        for found in samples
        if found.entry.contender == DYNINFER
    }
    return tuple(
        BaselineRatio(
            theirs.entry.name,
            ways[theirs.way],
            compare(ours[theirs.way, theirs.entry.call].times_ms, theirs.times_ms),
        )
        for theirs in samples
        if theirs.entry.contender != DYNINFER
    )
