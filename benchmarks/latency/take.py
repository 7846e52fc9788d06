"""One run of ``dyninfer bench``: everything that goes into a record, in order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import dyninfer
from dyninfer.benchmarks.latency.against import (
    FAILURES,
    BaselineRequest,
    OnStep,
    hold_comparison,
    reason_of,
)
from dyninfer.benchmarks.latency.effort import Effort
from dyninfer.benchmarks.latency.energy_log import EnergyLog
from dyninfer.benchmarks.latency.model import TooFewScenarios, fit
from dyninfer.benchmarks.latency.pictures import BenchPictures, describe_pictures, plain_pictures
from dyninfer.benchmarks.latency.record import (
    SCHEMA_VERSION,
    BenchRecord,
    MeasuredBundle,
    PicturesRecord,
    StageInfo,
)
from dyninfer.benchmarks.latency.rounds import measure_rounds, yardstick_of
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.scenarios import Choices, make_scenarios
from dyninfer.benchmarks.latency.summary import summarise
from dyninfer.benchmarks.machine import (
    MachineRecorder,
    describe_machine,
    find_energy_meter,
    measure_idle_watts,
)
from dyninfer.benchmarks.memory import peak_memory_mib
from dyninfer.bundle.folder import MANIFEST_FILE, file_sha256
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import DyninferError
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Policy
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.runtime.opening import load

HOST_CLOCK, DEVICE_CLOCK = "perf_counter_ns", "CUDA events"
"""Events on TensorRT's stream tell what the GPU did, and not how long the host waited."""
COMPARISON_S = 6.0
"""Seconds of the comparison for every one that a scenario gets."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        command: as it was typed.
        bundle: its folder.
        pictures: to run.
        engine: how the bundle is opened.
        choices: what to vary.
        effort: how long.
        policy: for the scenarios that route by themselves; None for the detector's own.
        baselines: what to compare with.
    """

    command: str
    bundle: Path
    pictures: BenchPictures
    engine: EngineChoice = field(default_factory=EngineChoice)
    choices: Choices = field(default_factory=Choices)
    effort: Effort = field(default_factory=Effort)
    policy: Policy | Goal | None = None
    baselines: BaselineRequest = field(default_factory=BaselineRequest)


class ComparisonInterrupted(KeyboardInterrupt):
    """Ctrl-C while the baselines ran; ``record`` is all that was measured before."""

    def __init__(self, record: BenchRecord) -> None:
        super().__init__("interrupted")
        self.record = record


def take_record(
    request: BenchRequest, on_step: OnStep = lambda _what, _done, _total: None
) -> BenchRecord:
    """Measure all that was asked for; ``on_step`` is told of every step before it starts.

    Raises:
        BundleError, BackendUnavailable, PolicyError, InputError: the bundle cannot be opened, or
            not be measured in the way that was asked for.
        ComparisonInterrupted: somebody pressed Ctrl-C while the baselines ran.
    """
    start = time.perf_counter()
    record, manifest = _run_detector(request, on_step)
    interrupted = False
    # our own engines are closed by now: idle ones would take time from others
    budget_s = COMPARISON_S * request.effort.seconds
    try:
        baselines, why = hold_comparison(
            request.bundle, request.engine, request.baselines, record.scenarios, budget_s, on_step
        )
    except KeyboardInterrupt:
        baselines, why, interrupted = None, "interrupted", True
    missing = dict(record.missing)
    if baselines is None:
        missing["baselines"] = why
    model = None
    try:
        model = fit(manifest, record.scenarios, baselines)
    except TooFewScenarios as error:
        missing["model"] = str(error)
    seconds = time.perf_counter() - start
    whole = replace(record, seconds=seconds, baselines=baselines, model=model, missing=missing)
    if interrupted:
        raise ComparisonInterrupted(whole)
    return whole


def _run_detector(request: BenchRequest, on_step: OnStep) -> tuple[BenchRecord, Manifest]:
    """All scenarios, the pictures and the machine; the record without what is made of them."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine = describe_machine()
    missing: dict[str, str] = {}
    with _opened(request) as detector:
        device = detector.device
        with (
            MachineRecorder(device=device) as recorder,
            _metered(device, request, on_step) as energy,
        ):
            results, yardstick_ms = _measure(detector, request, energy, on_step)
        peak_mib = peak_memory_mib()
        joules, reason = energy.by_exit()
        if joules is None:
            missing["energy"] = reason
        pictures, gaps = _describe_pictures(detector, request.pictures, results, on_step)
        record = BenchRecord(
            schema_version=SCHEMA_VERSION,
            written_by=f"dyninfer {dyninfer.__version__}",
            command=request.command,
            started_utc=started,
            seconds=0.0,
            clock=DEVICE_CLOCK if detector.backend.startswith("tensorrt") else HOST_CLOCK,
            measured=_describe_detector(detector),
            pictures=pictures,
            machine=machine,
            log=recorder.log(),
            peak_memory_mib=peak_mib,
            yardstick=yardstick_of(yardstick_ms),
            scenarios=results,
            energy=joules,
            missing=missing | gaps,
        )
        return record, detector.manifest


def _describe_detector(detector: Detector) -> MeasuredBundle:
    """Bundle, stages, engines and policy."""
    manifest, engines = detector.manifest, detector.engine_record()
    return MeasuredBundle(
        bundle=detector.bundle.path.resolve().name,
        family=manifest.family,
        manifest_sha256=file_sha256(detector.bundle.path / MANIFEST_FILE),
        exits=len(manifest.ways),
        image_inputs=dict(engines.image_inputs),
        stages=tuple(
            StageInfo(n, manifest.roles[n], engines.precision[n].value, s.parameters, s.macs)
            for n, s in manifest.stages.items()
        ),
        backend=engines.backend,
        backend_version=engines.backend_version,
        provider=engines.provider,
        device=engines.device_name,
        policy=str(detector.policy),
        ways=manifest.way_names,
    )


@contextmanager
def _opened(request: BenchRequest) -> Iterator[Detector]:
    """The detector, with room for the largest batch, at the policy that was asked for."""
    most = max(request.choices.batches)
    with load(request.bundle, **asdict(request.engine), max_batch=most) as detector:
        if request.policy is not None:
            detector.policy = request.policy
        yield detector


@contextmanager
def _metered(device: str, request: BenchRequest, on_step: OnStep) -> Iterator[EnergyLog]:
    """A log of the energy, once it is known what the machine uses with open engines at rest."""
    meter, reason = find_energy_meter(device)
    if meter is None:
        yield EnergyLog(None, failure=reason)
        return
    log = EnergyLog(meter)
    try:
        on_step("measuring the power at rest", 0, 1)
        try:
            log.idle_watts = measure_idle_watts(meter, request.effort.idle_seconds)
        except DyninferError as error:
            log.failure = str(error)
        yield log
    finally:
        meter.close()


def _measure(
    detector: Detector, request: BenchRequest, energy: EnergyLog, on_step: OnStep
) -> tuple[tuple[ScenarioResult, ...], tuple[float, ...]]:
    """The scenarios' results, and the yardstick's time in every round."""
    manifest, effort = detector.manifest, request.effort
    scenarios = make_scenarios(manifest, request.choices, str(request.bundle))
    steps = len(scenarios) * (effort.rounds + 1)
    done = count()
    measured = measure_rounds(
        detector,
        scenarios,
        request.pictures,
        effort,
        lambda what: on_step(what, next(done), steps),
        lambda scenario, run: energy.read_around(scenario, len(manifest.ways), run),
    )
    results = tuple(
        summarise(t.scenario, t.warm_up, t.slices, manifest, energy.of(t.scenario))
        for t in measured.tracks
    )
    return results, measured.yardstick_ms


def _describe_pictures(
    detector: Detector,
    pictures: BenchPictures,
    results: Sequence[ScenarioResult],
    on_step: OnStep,
) -> tuple[PicturesRecord, dict[str, str]]:
    """A failure costs the curve, and not the scenarios."""
    try:
        return describe_pictures(detector, pictures, results, lambda what: on_step(what, 0, 1))
    except FAILURES as error:
        return plain_pictures(pictures), {"curve": f"it could not be made: {reason_of(error)}"}
