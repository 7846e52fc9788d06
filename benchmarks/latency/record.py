"""What one run of ``dyninfer bench`` found: the format of its JSON file.

Every part that could not be measured is None or absent, and :attr:`BenchRecord.missing` says why.
All times are in milliseconds, all shares in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field

from dyninfer.benchmarks.latency.scenario_record import (
    FILLED,
    Positive,
    Scenario,
    ScenarioResult,
    Share,
)
from dyninfer.benchmarks.latency.step_costs import StepCost
from dyninfer.benchmarks.machine import Machine, MachineLog
from dyninfer.evaluation.interleaved import RatioEstimate

SCHEMA_VERSION = 2
MOST_EXITS = 64
MOST_ERROR = 0.2
"""Mean error up to which the model may say more than what was measured."""


@dataclass(frozen=True)
class ThresholdPoint:
    """What one threshold does on the record's pictures; ``mean_ms`` at batch 1."""

    threshold: float
    hard_fraction: float
    mean_ms: float
    ap: float | None = None
    ap50: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class SampleImage:
    """A small copy of a picture, and what every router says of it (None for NaN)."""

    name: str
    easiness: tuple[float | None, ...]
    jpeg_base64: str


@dataclass(frozen=True)
class PicturesRecord:
    """What was run.

    Attributes:
        what: what goes after their number: ``synthetic pictures, 720x1280 (height x width)``, or
            ``own pictures``.
        count: how many.
        sizes: ``HxW`` -> how many.
        easiness: one tuple for every router with one value for each picture, None for NaN; empty
            for synthetic ones, of which an easiness says nothing.
        curve: by rising hard fraction, from all easy to all hard; empty without real pictures.
        samples: some of the pictures, spread over the easiness.
    """

    what: str
    count: int
    sizes: Mapping[str, int]
    easiness: tuple[tuple[float | None, ...], ...] = ()
    curve: tuple[ThresholdPoint, ...] = ()
    samples: tuple[SampleImage, ...] = ()

    @property
    def in_words(self) -> str:
        """For example ``64 own pictures``."""
        what = self.what.replace("pictures", "picture", 1) if self.count == 1 else self.what
        return f"{self.count:,} {what}"


@dataclass(frozen=True)
class StageInfo:
    """Size of one stage; None where the bundle does not say."""

    name: str
    role: str
    precision: str
    parameters: int | None
    macs: int | None


@dataclass(frozen=True)
class MeasuredBundle:
    """What was opened: bundle, engines, policy; ``exits`` is how many ways it has.

    ``easiest`` is the name of the cheapest; empty in older records, where it was the first.
    """

    bundle: str
    family: str
    manifest_sha256: str
    exits: Annotated[int, Field(ge=1, le=MOST_EXITS)]
    image_inputs: Mapping[str, str]
    stages: tuple[StageInfo, ...]
    backend: str
    backend_version: str
    provider: str
    device: str
    policy: str
    ways: tuple[str, ...]
    easiest: str = ""


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


def _of_times(ratio: RatioEstimate) -> RatioEstimate:
    if not 0 < ratio.low <= ratio.median <= ratio.high < math.inf:
        raise ValueError("an interval of ratios above 0 that holds its median is expected")
    return ratio


@dataclass(frozen=True)
class BaselineRatio:
    """dyninfer's time over a baseline's, pair by pair: below 1, dyninfer is faster."""

    baseline: str
    side: str
    ratio: Annotated[RatioEstimate, AfterValidator(_of_times)]


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


@dataclass(frozen=True)
class ModelCheck:
    """Measured against predicted mean milliseconds per image; ``held_out`` was not fitted on."""

    scenario: Scenario
    measured_ms: float
    predicted_ms: float
    held_out: bool

    @property
    def error(self) -> float:
        """Relative error of the prediction, signed."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class LatencyModel:
    """Mean milliseconds per image as a function of hard fraction and batch.

    Attributes:
        steps: their costs, in the order of the spans.
        checks: every closed-loop scenario with one caller.
        mean_error: mean absolute relative error over the checks that were held out, or over all
            where none was.
        mean_noise: mean relative half-width of the measured intervals of the same checks: with an
            error below it, the model is as near to what was measured as can be told.
        break_even: hard fraction up to which the route beats the last way alone, by
            the baseline ``always-last-exit``; None where that was not measured.
        break_even_interval: its ends, at both ends of the intervals of that baseline's ratios.
        break_even_by_batch: an estimate of it for every batch size, by the steps: what the last
            way needs takes an all-hard call without the stages it does not read. Empty where
            there is one way.
        break_even_intervals_by_batch: its ends, where the last way's time is off by
            ``mean_error``.
    """

    steps: tuple[StepCost, ...]
    checks: tuple[ModelCheck, ...]
    mean_error: float
    break_even: float | None = None
    break_even_interval: tuple[Share, Share] | None = None
    break_even_by_batch: Mapping[int, float] = field(default_factory=dict)
    break_even_intervals_by_batch: Mapping[int, tuple[Share, Share]] = field(default_factory=dict)
    mean_noise: float | None = None

    @property
    def is_tested(self) -> bool:
        """Whether it can be trusted beyond what it was fitted on: off by little where held out."""
        return any(check.held_out for check in self.checks) and self.mean_error <= MOST_ERROR


@dataclass(frozen=True)
class Yardstick:
    """A fixed computation in NumPy, timed in every round: tells a slower machine from slower code.

    ``rounds_ms`` holds its median in each round.
    """

    what: str
    rounds_ms: Annotated[tuple[Positive, ...], FILLED]
    median_ms: Positive


@dataclass(frozen=True)
class Energy:
    """Joules of an image that leaves at each exit, above idle; ``source`` is the meter."""

    source: str
    idle_watts: float
    joules_by_exit: tuple[float, ...]


@dataclass(frozen=True)
class BenchRecord:
    """One run of ``dyninfer bench``.

    Attributes:
        command: as it was typed.
        clock: of the engines: ``perf_counter_ns``, or ``CUDA events``.
        missing: part of the record -> why it is not there.
    """

    schema_version: int
    written_by: str
    command: str
    started_utc: str
    seconds: float
    clock: str
    measured: MeasuredBundle
    pictures: PicturesRecord
    machine: Machine
    log: MachineLog
    peak_memory_mib: Positive
    yardstick: Yardstick
    scenarios: Annotated[tuple[ScenarioResult, ...], FILLED]
    baselines: Baselines | None = None
    model: LatencyModel | None = None
    energy: Energy | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
