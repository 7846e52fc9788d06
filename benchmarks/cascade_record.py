"""The result of one contest as a file: what was run, on what, every time, and what follows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.contenders import Call, Kind, Side
from dyninfer.benchmarks.contest import Memory, Samples
from dyninfer.benchmarks.interleaved import Quantiles, RatioEstimate, compare, quantiles
from dyninfer.benchmarks.machine import Machine
from dyninfer.bundle import write_atomically
from dyninfer.errors import InputError

SCHEMA_VERSION = 1
IF_GRAPH_LIMIT = 1.03
EAGER_LIMIT = 0.6
MEMORY_LIMIT = 1.15


@dataclass(frozen=True)
class Timing:
    """Times of one contender on one side with one kind of call."""

    kind: Kind
    call: Call
    side: Side
    quantiles: Quantiles
    idle_cpu_ms: float
    times_ms: tuple[float, ...]
    warm_up_ms: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Our time over another contender's, round by round, and what the project aims at."""

    other: Kind
    call: Call
    side: Side
    ratio: RatioEstimate
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the median ratio is within the limit."""
        return self.ratio.median <= self.limit


@dataclass(frozen=True)
class MemoryComparison:
    """Our peak memory over the single graph's."""

    other: Kind
    ratio: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the ratio is within the limit."""
        return self.ratio <= self.limit


@dataclass(frozen=True)
class CascadeRecord:
    """One contest.

    ``pool_pilot`` holds the runs by which the single graph's thread pool was chosen: the faster
    one takes part.
    """

    schema_version: int
    benchmark: str
    command: str
    finished_utc: str
    machine: Machine
    load_average_after_1min: float | None
    variant: str
    weights: str
    height: int
    width: int
    batch: int
    rounds: int
    settle_ms: float
    pool_pilot: tuple[Timing, ...]
    timings: tuple[Timing, ...]
    comparisons: tuple[Comparison, ...]
    memory: tuple[Memory, ...]
    memory_comparison: MemoryComparison


def timings_of(samples: Iterable[Samples]) -> tuple[Timing, ...]:
    """Samples with their quantiles."""
    return tuple(
        Timing(
            found.entry.kind,
            found.entry.call,
            found.side,
            quantiles(found.times_ms),
            found.idle_cpu_ms,
            found.times_ms,
            found.warm_up_ms,
        )
        for found in samples
    )


def faster_kind(timings: Iterable[Timing]) -> Kind:
    """The contender whose medians over both sides and all calls are smaller in sum."""
    total_ms: dict[Kind, float] = {}
    for timing in timings:
        total_ms[timing.kind] = total_ms.get(timing.kind, 0) + timing.quantiles.median_ms
    return min(total_ms, key=lambda kind: total_ms[kind])


def comparisons_of(timings: Sequence[Timing]) -> tuple[Comparison, ...]:
    """Ours against every other contender, with the same kind of call.

    PyTorch has one kind of call; both of ours are compared with it.
    """
    ours = [timing for timing in timings if timing.kind is Kind.DYNINFER]
    others = [timing for timing in timings if timing.kind is not Kind.DYNINFER]
    return tuple(
        Comparison(
            theirs.kind, mine.call, mine.side, compare(mine.times_ms, theirs.times_ms), limit
        )
        for theirs in others
        for mine in ours
        for limit in [EAGER_LIMIT if theirs.kind.is_pytorch else IF_GRAPH_LIMIT]
        if mine.side is theirs.side and (theirs.kind.is_pytorch or mine.call is theirs.call)
    )


def compare_memory(memory: Sequence[Memory], others: Sequence[Kind]) -> MemoryComparison:
    """Our peak memory over the smallest of the others'."""
    peaks = {entry.kind: entry.peak_mib for entry in memory}
    other = min(others, key=lambda kind: peaks[kind])
    return MemoryComparison(other, peaks[Kind.DYNINFER] / peaks[other], MEMORY_LIMIT)


def write_record(record: CascadeRecord, path: Path) -> None:
    """Write a record as JSON; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")


def read_record(path: Path) -> CascadeRecord:
    """Read what :func:`write_record` wrote.

    Raises:
        InputError: the file is not such a record.
    """
    try:
        return TypeAdapter(CascadeRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is no result of this benchmark: {where}: {first['msg']}"
        ) from None
