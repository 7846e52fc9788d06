"""What one run of ``dyninfer bench`` found: the format of its JSON file.

Every part that could not be measured is None or absent, and :attr:`BenchRecord.missing` says why.
All times are in milliseconds, all shares in [0, 1].
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from dyninfer.benchmarks.latency.baseline_record import Baselines
from dyninfer.benchmarks.latency.model_record import LatencyModel
from dyninfer.benchmarks.latency.scenario_record import FILLED, Positive, Scenario, ScenarioResult
from dyninfer.benchmarks.machine import Machine, MachineLog
from dyninfer.bundle.documents import first_problem
from dyninfer.bundle.folder import write_atomically
from dyninfer.errors import InputError

SCHEMA_VERSION = 2
"""1 knew no ways: baselines had the sides easy and hard, static bundles were all hard."""
MOST_EXITS = 64
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


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
    """What was opened: bundle, engines, policy; ``exits`` is how many ways it has."""

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
    ways: tuple[str, ...] = ()

    @property
    def way_names(self) -> tuple[str, ...]:
        """What each way is called; in a record of schema 1 they are exits."""
        return self.ways or tuple(f"exit {index}" for index in range(self.exits))


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


def write_record(record: BenchRecord, path: Path) -> None:
    """Write a record as JSON, in one step.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> BenchRecord:
    """Read what :func:`write_record` wrote.

    Its text comes back without control characters, which a terminal would obey.

    Raises:
        InputError: the file is missing, comes from a later dyninfer, or is not such a record.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        payload = _printable(json.loads(data))
    except (ValueError, RecursionError):
        payload = None  # validation tells what is wrong
    version = payload.get("schema_version") if isinstance(payload, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:  # whatever else is in it
        raise InputError(
            f"{path} has schema version {version}, this dyninfer reads up to {SCHEMA_VERSION}; "
            "upgrade with pip install -U dyninfer"
        )
    adapter = TypeAdapter(BenchRecord)
    try:
        record = (
            adapter.validate_json(data) if payload is None else adapter.validate_python(payload)
        )
    except ValidationError as error:
        problem = _printable(first_problem(error))
    else:
        record, problem = _upgraded(record), _misfit(record)
    if problem:
        raise InputError(
            f"{path} is not a record of dyninfer bench: {problem}; "
            "expected what dyninfer bench --output wrote"
        )
    return record


def _upgraded(record: BenchRecord) -> BenchRecord:
    """A record of schema 1 in the terms of today; any other as it is."""
    if record.schema_version != 1:
        return record
    names, model, found = record.measured.way_names, record.model, record.baselines
    sides = {"easy": names[0], "hard": names[-1]}

    def scenario_of(entry: Scenario) -> Scenario:
        all_hard = len(names) == 1 and entry.hard_fraction == 1.0
        return replace(entry, hard_fraction=None, way=names[0]) if all_hard else entry

    return replace(
        record,
        schema_version=SCHEMA_VERSION,
        measured=replace(record.measured, ways=names),
        scenarios=tuple(replace(r, scenario=scenario_of(r.scenario)) for r in record.scenarios),
        baselines=found
        and replace(
            found,
            times=tuple(replace(t, side=sides.get(t.side, t.side)) for t in found.times),
            ratios=tuple(replace(r, side=sides.get(r.side, r.side)) for r in found.ratios),
        ),
        model=model
        and replace(
            model,
            checks=tuple(replace(c, scenario=scenario_of(c.scenario)) for c in model.checks),
        ),
    )


def _misfit(record: BenchRecord) -> str:
    """What does not go with the number of exits; empty where all does."""
    exits, pictures, ways = record.measured.exits, record.pictures, record.measured.ways
    left = {entry.exit_index for result in record.scenarios for entry in result.exits}
    if strange := sorted(left - set(range(exits))):
        return f"images left at exit {strange[0]}, and measured.exits is {exits}"
    routers = {len(sample.easiness) for sample in pictures.samples}
    if pictures.easiness:
        routers.add(len(pictures.easiness))
    if strange := sorted(routers - {exits - 1}):
        return f"there is an easiness by {strange[0]} routers, and measured.exits is {exits}"
    if ways and len(ways) != exits:
        return f"there are {len(ways)} names of ways, and measured.exits is {exits}"
    return ""


def _printable(value: Any) -> Any:
    """The same JSON, with a space for each run of control characters in its text."""
    if isinstance(value, str):
        return _CONTROLS.sub(" ", value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return value
