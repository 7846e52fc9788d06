"""One run of ``dyninfer bench``: everything that goes into a record, in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from itertools import count

import dyninfer
from dyninfer.benchmarks.baselines.run import Progress, run_baselines
from dyninfer.benchmarks.latency.energy_log import EnergyLog, metered
from dyninfer.benchmarks.latency.model import TooFewScenarios, fit
from dyninfer.benchmarks.latency.pictures import BenchPictures, describe_pictures, plain_pictures
from dyninfer.benchmarks.latency.record import (
    SCHEMA_VERSION,
    Baselines,
    BenchRecord,
    MeasuredBundle,
    PicturesRecord,
    StageInfo,
    Yardstick,
)
from dyninfer.benchmarks.latency.request import LEAST_PAIRS, BaselineRequest, BenchRequest
from dyninfer.benchmarks.latency.rounds import RoundsInterrupted, measure_rounds
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.scenarios import make_scenarios
from dyninfer.benchmarks.latency.slices import MS_PER_S
from dyninfer.benchmarks.latency.summary import summarise
from dyninfer.benchmarks.machine import MachineRecorder, describe_machine
from dyninfer.benchmarks.memory import peak_memory_mib
from dyninfer.bundle.folder import MANIFEST_FILE
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import DyninferError
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

HOST_CLOCK, DEVICE_CLOCK = "perf_counter_ns", "CUDA events"
"""Events on TensorRT's stream tell what the GPU did, and not how long the host waited."""
COMPARISON_S = 6.0
"""Seconds of the comparison for every one that a scenario gets."""
INTERRUPTED = "interrupted"
ROUNDS = "rounds"
"""What is missing of a record whose scenarios were interrupted."""
FAILURES = (DyninferError, OSError, MemoryError)
"""What may go wrong after the scenarios and must not cost them."""


class BenchInterrupted(KeyboardInterrupt):
    """Ctrl-C while scenarios or baselines ran; ``record`` is all that was measured before."""

    def __init__(self, record: BenchRecord) -> None:
        super().__init__("interrupted")
        self.record = record


def take_record(
    request: BenchRequest, on_step: Progress = lambda _what, _done, _total: None
) -> BenchRecord:
    """Measure all that was asked for; ``on_step`` is told of every step before it starts.

    Raises:
        BundleError, BackendUnavailable, PolicyError, InputError: the bundle cannot be opened, or
            not be measured in the way that was asked for.
        BenchInterrupted: somebody pressed Ctrl-C once something was measured.
    """
    start = time.perf_counter()
    record, manifest = _run_detector(request, on_step)
    missing, baselines, model = dict(record.missing), None, None
    interrupted = ROUNDS in missing
    # our own engines are closed by now: idle ones would take time from others
    try:
        if interrupted:
            missing["baselines"] = INTERRUPTED
        else:
            baselines = _hold_comparison(request, record.scenarios, on_step)
    except KeyboardInterrupt:
        missing["baselines"], interrupted = INTERRUPTED, True
    except FAILURES as error:
        missing["baselines"] = f"the comparison failed: {_reason_of(error)}"
    if baselines is None:
        missing.setdefault("baselines", request.baselines.reason)
    try:
        model = fit(manifest, record.scenarios, baselines)
    except TooFewScenarios as error:
        missing["model"] = str(error)
    seconds = time.perf_counter() - start
    whole = replace(record, seconds=seconds, baselines=baselines, model=model, missing=missing)
    if interrupted:
        raise BenchInterrupted(whole)
    return whole


def _run_detector(request: BenchRequest, on_step: Progress) -> tuple[BenchRecord, Manifest]:
    """All scenarios, the pictures and the machine; the record without what is made of them."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    machine = describe_machine()
    missing: dict[str, str] = {}
    most = max(request.choices.batches)
    with load(request.bundle, **asdict(request.engine), max_batch=most) as detector:
        if request.policy is not None:
            detector.policy = request.policy
        idle_s = request.effort.idle_seconds
        with (
            MachineRecorder(device=detector.device) as recorder,
            metered(detector.device, idle_s, lambda what: on_step(what, 0, 1)) as energy,
        ):
            results, yardstick, cut = _measure(detector, request, energy, on_step)
        if cut:
            missing[ROUNDS] = cut
        peak_mib = peak_memory_mib()
        joules, reason = energy.by_exit()
        if joules is None:
            missing["energy"] = reason
        pictures, gaps = (
            (plain_pictures(request.pictures), {"curve": INTERRUPTED})
            if cut
            else _describe_pictures(detector, request.pictures, results, on_step)
        )
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
            yardstick=yardstick,
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
        easiest=manifest.way_names[manifest.ways_by_cost[0]],
    )


def _measure(
    detector: Detector, request: BenchRequest, energy: EnergyLog, on_step: Progress
) -> tuple[tuple[ScenarioResult, ...], Yardstick, str]:
    """The scenarios' results, the yardstick's time in every round, and what cut them short."""
    manifest, effort = detector.manifest, request.effort
    scenarios = make_scenarios(manifest, request.choices, str(request.bundle))
    steps = len(scenarios) * (effort.rounds + 1)
    done = count()
    cut = ""
    try:
        tracks, yardstick = measure_rounds(
            detector,
            scenarios,
            request.pictures,
            effort,
            lambda what: on_step(what, next(done), steps),
            lambda scenario, run: energy.read_around(scenario, len(manifest.ways), run),
        )
    except RoundsInterrupted as found:
        tracks, yardstick = found.tracks, found.yardstick
        cut = f"{INTERRUPTED} in round {found.number + 1} of {effort.rounds}"
        if len(tracks) < len(scenarios):
            cut += f", before {len(scenarios) - len(tracks)} of {len(scenarios)} scenarios"
    results = tuple(
        summarise(t.scenario, t.warm_up, t.slices, manifest, energy.of(t.scenario)) for t in tracks
    )
    return results, yardstick, cut


def _describe_pictures(
    detector: Detector,
    pictures: BenchPictures,
    results: Sequence[ScenarioResult],
    on_step: Progress,
) -> tuple[PicturesRecord, dict[str, str]]:
    """Say what the router makes of the pictures; where that fails, only the curve is lost."""
    try:
        return describe_pictures(detector, pictures, results, lambda what: on_step(what, 0, 1))
    except FAILURES as error:
        return plain_pictures(pictures), {"curve": f"it could not be made: {_reason_of(error)}"}


def _hold_comparison(
    request: BenchRequest, results: Sequence[ScenarioResult], on_step: Progress
) -> Baselines | None:
    """Run the baselines, if any."""
    asked = request.baselines
    if not asked.names:
        return None
    return run_baselines(
        request.bundle,
        asked.names,
        sources=asked.sources,
        rounds=rounds_of_comparison(asked, results, COMPARISON_S * request.effort.seconds),
        engine=request.engine,
        memory=asked.memory,
        progress=lambda what, done, total: on_step(f"baselines: {what}", done, total),
    )


def rounds_of_comparison(
    asked: BaselineRequest, results: Sequence[ScenarioResult], seconds: float
) -> int:
    """Rounds as were asked for, or as fit into the time, but never too few to say anything.

    dyninfer and each baseline run once on each way in a round, after a call that does not count;
    how long a call takes, the scenarios of single images tell.
    """
    slowest_ms = max((r.latency.mean_ms.value for r in results if r.scenario.is_plain), default=0.0)
    ways = len(results[0].exits) if results else 1
    calls = 2 * ways * (1 + len(asked.names))
    fitting = seconds * MS_PER_S / (calls * slowest_ms) if slowest_ms else asked.rounds
    return min(asked.rounds, max(LEAST_PAIRS, int(fitting)))


def _reason_of(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
