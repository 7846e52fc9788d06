"""What a record holds of dyninfer beside its baselines. All times are in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dyninfer.evaluation.interleaved import RatioEstimate


@dataclass(frozen=True)
class ContenderTimes:
    """One contender on images that take one way, whose name is ``side``, batch 1."""

    name: str
    what: str
    side: str
    times_ms: tuple[float, ...]
    median_ms: float
    p25_ms: float
    p75_ms: float
    idle_cpu_ms: float


@dataclass(frozen=True)
class BaselineRatio:
    """dyninfer's time over a baseline's, pair by pair: below 1, dyninfer is faster."""

    baseline: str
    side: str
    ratio: RatioEstimate


@dataclass(frozen=True)
class ContenderMemory:
    """A fresh process that opens a contender and runs all ways: largest resident set, MiB."""

    name: str
    load_ms: float
    loaded_mib: float
    peak_mib: float


@dataclass(frozen=True)
class Baselines:
    """dyninfer and its baselines, in turns in one run.

    Attributes:
        rounds: runs of every contender for each way.
        times: of every contender, kind of call and way; ``dyninfer, engines only`` and the like
            leave their outputs in buffers.
        ratios: of like with like.
        memory: of every contender.
        unavailable: baseline -> why it is absent, in one line.
        differences: baseline -> largest difference between what it and dyninfer find in the same
            image on the same way, over the largest value of that output.
        notes: contender -> what to know about it, such as how long it took to compile.
    """

    rounds: int
    times: tuple[ContenderTimes, ...]
    ratios: tuple[BaselineRatio, ...]
    memory: tuple[ContenderMemory, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
