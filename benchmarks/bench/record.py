"""What one run of ``dyninfer bench`` found: the format of its JSON file.

Every part that could not be measured is None or absent, and :attr:`BenchRecord.missing` says why.
All times are in milliseconds, all shares in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.interleaved import RatioEstimate
from dyninfer.benchmarks.machine import Machine, MachineLog
from dyninfer.bundle import write_atomically
from dyninfer.errors import InputError
from dyninfer.validation import first_problem

SCHEMA_VERSION = 1


class SpanKind(str, Enum):
    """What is done in a span; a report gives each a colour."""

    DECODE = "decode"
    PREPARE = "prepare"
    COPY = "copy"
    ENGINE = "engine"
    READ_BACK = "read-back"
    POSTPROCESS = "postprocess"
    OTHER = "other"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval, drawn over rounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Distribution:
    """Where times lie. A percentile that too few times support is None."""

    count: int
    mean_ms: Estimate
    min_ms: float
    max_ms: float
    p50_ms: Estimate
    p90_ms: Estimate | None
    p99_ms: Estimate | None
    p999_ms: Estimate | None


@dataclass(frozen=True)
class Scenario:
    """One way to use a detector.

    Attributes:
        batch: images in a call.
        hard_fraction: share of the images that is sent through to the last exit, whatever the
            router says; None lets the detector's own policy decide.
        concurrency: callers at once, each in a thread of its own.
        rate_per_s: calls a second that arrive on schedule, over all callers; None starts each
            call when the one before has ended.
        decode: whether pictures are decoded from their files within the call.
    """

    batch: int = 1
    hard_fraction: float | None = None
    concurrency: int = 1
    rate_per_s: float | None = None
    decode: bool = False

    @property
    def name(self) -> str:
        """In words; the same for the same scenario in every record."""
        hard = "as routed" if self.hard_fraction is None else f"{self.hard_fraction:.4g} hard"
        parts = [f"batch {self.batch}", hard]
        if self.concurrency > 1:
            parts.append(f"{self.concurrency} callers")
        if self.rate_per_s is not None:
            parts.append(f"{self.rate_per_s:g} calls/s")
        if self.decode:
            parts.append("with decoding")
        return ", ".join(parts)


@dataclass(frozen=True)
class WarmUp:
    """What was run before times counted; ``stable`` is False where the limit ended it."""

    calls: int
    seconds: float
    stable: bool


@dataclass(frozen=True)
class SpanTime:
    """One named step.

    Attributes:
        name: ``decode``, ``prepare``, a stage's name, ``gather``, ``read-back``, ...
        kind: what sort of work it is.
        ms_per_image: mean over all images of the scenario; those without the step count as 0, so
            that the spans of a scenario add up to its time per image.
        ms_when_run: mean over the images that went through it.
        share: of the images that went through it.
    """

    name: str
    kind: SpanKind
    ms_per_image: Estimate
    ms_when_run: float
    share: float


@dataclass(frozen=True)
class ExitTime:
    """Calls all of whose images left at one exit; ``share`` is that of all images at this exit."""

    exit_index: int
    share: float
    latency: Distribution | None


@dataclass(frozen=True)
class ScenarioResult:
    """What was measured of one scenario.

    Attributes:
        hard_fraction: share of the images that did reach the last exit.
        latency: of a call, all its images together. At a fixed rate it counts from the moment
            the call was due, so that waiting for the call before is in it.
        ms_per_image: wall-clock time over images, all callers together.
        images_per_s: its inverse.
        late_share: at a fixed rate, share of the calls that could not start when they were due.
        joules_per_image: above idle, where an energy meter is at hand.
        rounds_ms: every call's latency, round by round.
    """

    scenario: Scenario
    hard_fraction: float
    warm_up: WarmUp
    latency: Distribution
    ms_per_image: Estimate
    images_per_s: Estimate
    spans: tuple[SpanTime, ...]
    exits: tuple[ExitTime, ...]
    rounds_ms: tuple[tuple[float, ...], ...]
    late_share: float | None = None
    joules_per_image: float | None = None


@dataclass(frozen=True)
class ContenderTimes:
    """One contender on images that leave at one exit (``side`` ``easy`` or ``hard``), batch 1."""

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
    """A fresh process that opens a contender and runs both sides: largest resident set, MiB."""

    name: str
    load_ms: float
    loaded_mib: float
    peak_mib: float


@dataclass(frozen=True)
class Baselines:
    """dyninfer and its baselines, in turns in one run.

    Attributes:
        rounds: runs of every contender for each side.
        times: of every contender, kind of call and side; ``dyninfer, engines only`` and the like
            leave their outputs in buffers.
        ratios: of like with like.
        memory: of every contender.
        unavailable: baseline -> why it is absent, in one line.
        differences: baseline -> largest difference between what it and dyninfer find in the same
            image on the same route, over the largest value of that output.
        notes: contender -> what to know about it, such as how long it took to compile.
    """

    rounds: int
    times: tuple[ContenderTimes, ...]
    ratios: tuple[BaselineRatio, ...]
    memory: tuple[ContenderMemory, ...]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


class RunsFor(str, Enum):
    """The rows of a call that a step runs for, where each image leaves at the first or last exit.

    ``MIXED`` is all rows of a call in which some leave at the first exit and some at the last.
    """

    ALL = "all"
    EASY = "easy"
    HARD = "hard"
    MIXED = "mixed"


@dataclass(frozen=True)
class StepCost:
    """A step of the latency model.

    A call that runs it for n rows costs ``fixed_ms + per_image_ms * n``, and nothing for none. A
    step that runs for several kinds of rows has several entries of one name. ``fixed_ms`` is
    negative where further rows cost more than the first, as when a batch outgrows a cache; the
    cost of a call never is.
    """

    name: str
    fixed_ms: float
    per_image_ms: float
    runs_for: RunsFor = RunsFor.ALL


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
        break_even: hard fraction up to which the cascade beats the last exit's detector alone, by
            the baseline ``always-last-exit``; None where that was not measured.
        break_even_by_batch: the same for every batch size measured, by the steps: what the last
            exit needs takes an all-hard call without the stages it does not read. Empty where
            there is one exit.
    """

    steps: tuple[StepCost, ...]
    checks: tuple[ModelCheck, ...]
    mean_error: float
    break_even: float | None = None
    break_even_by_batch: Mapping[int, float] = field(default_factory=dict)
    mean_noise: float | None = None


@dataclass(frozen=True)
class CurvePoint:
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
class Pictures:
    """What was run.

    Attributes:
        what: ``synthetic 720x1280 (height x width)``, or ``pictures of the user's``.
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
    curve: tuple[CurvePoint, ...] = ()
    samples: tuple[SampleImage, ...] = ()


@dataclass(frozen=True)
class StageInfo:
    """Size of one stage; None where the bundle does not say."""

    name: str
    role: str
    precision: str
    parameters: int | None
    macs: int | None


@dataclass(frozen=True)
class Measured:
    """What was opened: bundle, engines, policy."""

    bundle: str
    family: str
    manifest_sha256: str
    exits: int
    image_inputs: Mapping[str, str]
    stages: tuple[StageInfo, ...]
    backend: str
    backend_version: str
    provider: str
    device: str
    policy: str


@dataclass(frozen=True)
class Yardstick:
    """A fixed computation in NumPy, timed in every round: tells a slower machine from slower code.

    ``rounds_ms`` holds its median in each round.
    """

    what: str
    rounds_ms: tuple[float, ...]
    median_ms: float


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
    measured: Measured
    pictures: Pictures
    machine: Machine
    log: MachineLog
    peak_memory_mib: float
    yardstick: Yardstick
    scenarios: tuple[ScenarioResult, ...]
    baselines: Baselines | None = None
    model: LatencyModel | None = None
    energy: Energy | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def write_record(record: BenchRecord, path: Path) -> None:
    """Write a record as JSON, in one step.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> BenchRecord:
    """Read what :func:`write_record` wrote.

    Raises:
        InputError: the file is missing, or is not such a record.
    """
    try:
        return TypeAdapter(BenchRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(
            f"{path} is no record of dyninfer bench: {first_problem(error)}; "
            "expected what dyninfer bench --output wrote"
        ) from None
