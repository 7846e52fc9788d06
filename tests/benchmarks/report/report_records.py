"""Records as ``dyninfer bench`` writes them, made without running it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np

from dyninfer.benchmarks.latency.record import (
    SCHEMA_VERSION,
    BaselineRatio,
    Baselines,
    BenchRecord,
    ContenderMemory,
    ContenderTimes,
    Energy,
    LatencyModel,
    MeasuredBundle,
    ModelCheck,
    PicturesRecord,
    SampleImage,
    StageInfo,
    ThresholdPoint,
    Yardstick,
)
from dyninfer.benchmarks.latency.scenario_record import (
    Distribution,
    Estimate,
    ExitTime,
    Scenario,
    ScenarioResult,
    SpanKind,
    SpanTime,
    WarmUp,
)
from dyninfer.benchmarks.latency.step_costs import StepCost
from dyninfer.benchmarks.machine import Machine, MachineLog
from dyninfer.benchmarks.machine.recorder import Range
from dyninfer.evaluation.interleaved import RatioEstimate
from dyninfer.routing.policy import route

HOSTILE = (
    "</script><img src=x onerror=alert(1)><!-- | `a` *b* [c](javascript:d) \x00\u2028'\"&\n# e"
)
FIRST_MS, HEAD_MS, SECOND_MS, ROUTER_MS, PREPARE_MS, POST_MS = 14.0, 9.0, 21.0, 0.3, 2.4, 0.6


def estimate(value: float, spread: float = 0.03) -> Estimate:
    return Estimate(value, value * (1 - spread), value * (1 + spread))


def distribution(times_ms: Sequence[float]) -> Distribution:
    count = len(times_ms)
    p50, p90, p95, p99, p999 = np.quantile(times_ms, [0.5, 0.9, 0.95, 0.99, 0.999]).tolist()
    return Distribution(
        count,
        estimate(float(np.mean(times_ms))),
        min(times_ms),
        max(times_ms),
        estimate(p50),
        estimate(p90) if count >= 20 else None,
        estimate(p99) if count >= 200 else None,
        estimate(p999) if count >= 2000 else None,
        estimate(p95) if count >= 40 else None,
    )


def spans_of(hard: float) -> tuple[SpanTime, ...]:
    easy = 1 - hard
    steps = (
        ("prepare", SpanKind.PREPARE, PREPARE_MS, 1.0),
        ("first", SpanKind.ENGINE, FIRST_MS, 1.0),
        ("router", SpanKind.ENGINE, ROUTER_MS, 1.0),
        ("read-back", SpanKind.READ_BACK, 0.05, 1.0),
        ("head", SpanKind.ENGINE, HEAD_MS, easy),
        ("gather", SpanKind.COPY, 0.2, hard),
        ("second", SpanKind.ENGINE, SECOND_MS, hard),
        ("postprocess", SpanKind.POSTPROCESS, POST_MS, 1.0),
        ("other", SpanKind.OTHER, 0.15, 1.0),
    )
    return tuple(
        SpanTime(name, kind, estimate(cost * share), cost, share)
        for name, kind, cost, share in steps
    )


def scenario_result(
    scenario: Scenario, calls: int = 400, rounds: int = 8, *, stable: bool = True, seed: int = 0
) -> ScenarioResult:
    rng = np.random.default_rng(seed)
    hard = 0.4 if scenario.hard_fraction is None else scenario.hard_fraction
    spans = spans_of(hard)
    decode = SpanTime("decode", SpanKind.DECODE, estimate(4.1), 4.1, 1.0)
    spans = (decode, *spans) if scenario.decode else spans
    per_image = sum(span.ms_per_image.value for span in spans)
    many = rng.random((calls, scenario.batch)) < hard
    easy_ms = PREPARE_MS + FIRST_MS + ROUTER_MS + HEAD_MS + POST_MS
    times = (easy_ms + many * (SECOND_MS - HEAD_MS)).sum(axis=1) * rng.gamma(400, 1 / 400, calls)
    late = None
    if scenario.rate_per_s is not None:
        times = times + rng.exponential(6, calls) * (rng.random(calls) < 0.3) ** 2
        times[rng.random(calls) < 0.02] *= 9
        late = 0.231
    by_round = tuple(tuple(part.tolist()) for part in np.array_split(times, rounds))
    exits = tuple(
        ExitTime(index, share, distribution(times.tolist()) if share and calls > 1 else None)
        for index, share in enumerate((1 - hard, hard))
    )
    return ScenarioResult(
        scenario,
        hard,
        WarmUp(12, 1.4, stable),
        distribution(times.tolist()),
        estimate(per_image),
        estimate(1000 / per_image),
        spans,
        exits,
        by_round,
        late,
    )


def picture(seed: int, easiness: float) -> str:
    """A scene that is busier, the harder it is."""
    rng = np.random.default_rng(seed)
    image = np.full((72, 96, 3), rng.integers(90, 200, 3), np.uint8)
    for _ in range(int(2 + 24 * (1 - easiness))):
        x, y = map(int, rng.integers(0, [96, 72]))
        colour = tuple(map(int, rng.integers(0, 255, 3)))
        cv2.circle(image, (x, y), int(rng.integers(3, 14)), colour, -1)
    found, data = cv2.imencode(".jpg", image)
    assert found
    return base64.b64encode(data.tobytes()).decode()


def pictures_of(
    easiness: np.ndarray, samples: int = 18, points: int = 41, *, labels: bool = True
) -> PicturesRecord:
    """``easiness`` is (routers, pictures); NaN where a router gave none."""
    count = easiness.shape[1]
    thresholds = np.quantile(easiness[0][~np.isnan(easiness[0])], np.linspace(0, 1, points))
    thresholds[0], thresholds[-1] = 0, np.nextafter(1, 2)
    curve = []
    for threshold in thresholds.tolist():
        hard = np.logical_and.reduce([route(e, threshold) for e in easiness]).mean()
        gain = 1 - (1 - hard) ** 1.8
        curve.append(
            ThresholdPoint(
                threshold,
                float(hard),
                26.5 + 12.5 * float(hard),
                0.561 + 0.065 * float(gain) if labels else None,
                0.844 + 0.041 * float(gain) if labels else None,
                0.83 + 0.17 * float(gain),
            )
        )

    def known(values: np.ndarray) -> tuple[float | None, ...]:
        return tuple(None if np.isnan(value) else float(value) for value in values)

    chosen = np.argsort(easiness[0])[np.linspace(0, count - 1, samples).astype(int)]
    shown = tuple(
        SampleImage(
            f"scene-{index:03d}.jpg",
            known(easiness[:, index]),
            picture(int(index), float(np.nan_to_num(easiness[0, index]))),
        )
        for index in chosen
    )
    rows = tuple(known(values) for values in easiness)
    sizes = {"480x640": count - 40, "640x480": 40} if count > 40 else {"480x640": count}
    return PicturesRecord("own pictures", count, sizes, rows, tuple(curve), shown)


def machine() -> Machine:
    return Machine(
        cpu="AMD EPYC 7B13",
        usable_cores=2,
        cpu_flags=("avx2", "avx512f", "avx512_vnni"),
        memory_gib=24.0,
        system="Linux 6.1.0 x86_64",
        python="CPython 3.11.9",
        versions={"dyninfer": "0.1.0", "numpy": "2.4.1", "onnxruntime": "1.31.0"},
        load_average_1min=0.31,
    )


def log() -> MachineLog:
    return MachineLog(
        seconds=188.0,
        samples=376,
        readings={
            "cpu_mhz": Range(2249, 3391, 3420),
            "cpu_temperature_c": Range(48, 61, 66),
            "other_load_cores": Range(0, 0.02, 0.11),
        },
        missing={"package_watts": "/sys/class/powercap is not readable by this user"},
    )


def measured(exits: int = 2) -> MeasuredBundle:
    stages = (
        StageInfo("first", "body", "fp32", 5_120_000, 2_310_000_000),
        StageInfo("router", "router", "fp32", 8_448, 8_000),
        StageInfo("head", "head", "fp32", 2_040_000, 1_120_000_000),
        StageInfo("second", "body", "fp32", 9_800_000, None),
    )
    return MeasuredBundle(
        bundle="dy-digits.dyn",
        family="dynamicdet",
        manifest_sha256="9f2c" * 16,
        exits=exits,
        image_inputs={"images": "640x640"},
        stages=stages[: 1 if exits == 1 else 4],
        backend="onnxruntime",
        backend_version="1.31.0",
        provider="CPUExecutionProvider",
        device="cpu",
        policy="threshold 0.5" if exits > 1 else "every image hard",
        ways=tuple(f"exit {index}" for index in range(exits)),
    )


def baselines() -> Baselines:
    names = {
        "single-graph-if": (0.98, 1.0),
        "pytorch-eager": (0.48, 0.44),
        "always-last-exit": (0.83, 1.19),
    }
    times, ratios = [], []
    for side_index, (side, ours) in enumerate((("exit 0", 26.3), ("exit 1", 38.6))):
        rows = {"dyninfer": ours} | {name: ours / r[side_index] for name, r in names.items()}
        for name, median in rows.items():
            spread = (median * 0.97, median, median * 1.02)
            what = f"what {name} is, in a sentence"
            times.append(
                ContenderTimes(name, what, side, spread, median, spread[0], spread[2], 0.4)
            )
        ratios += [
            BaselineRatio(
                name,
                side,
                RatioEstimate(r[side_index], r[side_index] * 0.96, r[side_index] * 1.05, 0.95, 20),
            )
            for name, r in names.items()
        ]
    memory = tuple(
        ContenderMemory(name, 420.0 + 900 * i, 210.0 + 130 * i, 340.0 + 300 * i)
        for i, name in enumerate(("dyninfer", *names))
    )
    absent = {"torch-compile": "no C++ compiler was found; install g++"}
    return Baselines(20, tuple(times), tuple(ratios), memory, absent)


def scenarios() -> tuple[ScenarioResult, ...]:
    closed = [Scenario(batch, hard) for batch in (1, 4) for hard in (0.0, 0.25, 0.5, 1.0)]
    more = [
        Scenario(hard_fraction=None),
        Scenario(hard_fraction=0.5, concurrency=4),
        Scenario(hard_fraction=0.5, decode=True),
        Scenario(hard_fraction=0.5, rate_per_s=20),
        Scenario(hard_fraction=0.5, rate_per_s=27.5),
    ]
    return tuple(
        scenario_result(scenario, 2400 if scenario.rate_per_s else 400, seed=index)
        for index, scenario in enumerate([*closed, *more])
    )


def model(results: Sequence[ScenarioResult]) -> LatencyModel:
    rng = np.random.default_rng(5)
    checks = tuple(
        ModelCheck(
            result.scenario,
            result.ms_per_image.value * result.scenario.batch**-0.3,
            result.ms_per_image.value * result.scenario.batch**-0.3 * rng.normal(1, 0.03),
            index % 3 == 0,
        )
        for index, result in enumerate(results)
        if result.scenario.rate_per_s is None and result.scenario.concurrency == 1
    )
    steps = (
        StepCost("first", 1.2 + FIRST_MS, FIRST_MS),
        StepCost("second", 0.7 + SECOND_MS, SECOND_MS),
    )
    return LatencyModel(steps, checks, 0.031, 0.47)


@cache
def full_record() -> BenchRecord:
    rng = np.random.default_rng(3)
    easiness = rng.beta(2.4, 1.9, (1, 240))
    easiness[0, 7] = np.nan
    results = scenarios()
    return BenchRecord(
        schema_version=SCHEMA_VERSION,
        written_by="dyninfer 0.1.0",
        command="dyninfer bench dy-digits.dyn --images photos/ --baseline all --html report.html",
        started_utc="2026-11-22T09:00:00Z",
        seconds=188.4,
        clock="perf_counter_ns",
        measured=measured(),
        pictures=pictures_of(easiness),
        machine=machine(),
        log=log(),
        peak_memory_mib=412.0,
        yardstick=Yardstick("a 512x512 matrix product in NumPy", (3.1, 3.2, 3.15), 3.15),
        scenarios=results,
        baselines=baselines(),
        model=model(results),
        energy=Energy("Intel RAPL, package", 11.5, (0.41, 0.77)),
    )


@cache
def minimal_record() -> BenchRecord:
    """A static bundle on random pixels, with nothing but one scenario."""
    missing = {
        "curve": "the pictures are random pixels; give yours with --images",
        "baselines": "none was asked for",
        "model": "one scenario does not determine it",
        "energy": "this machine has no energy meter",
    }
    only = replace(scenario_result(Scenario()), hard_fraction=1.0, exits=(ExitTime(0, 1.0, None),))
    return replace(
        full_record(),
        measured=measured(exits=1),
        pictures=PicturesRecord(
            "synthetic pictures, 720x1280 (height x width)", 16, {"720x1280": 16}
        ),
        scenarios=(only,),
        baselines=None,
        model=None,
        energy=None,
        missing=missing,
    )


@cache
def three_exits_record() -> BenchRecord:
    easiness = np.random.default_rng(4).beta(2, 2, (2, 60))
    easiness[0, 3] = easiness[1, 5] = np.nan
    record = full_record()
    pictures = pictures_of(easiness, samples=12, points=21, labels=False)
    return replace(record, measured=measured(exits=3), pictures=pictures)


@cache
def single_call_record() -> BenchRecord:
    once = scenario_result(Scenario(hard_fraction=0.0), calls=1, rounds=1, stable=False)
    return replace(full_record(), scenarios=(once,), model=None)


@cache
def hostile_record() -> BenchRecord:
    """Every text that a user, a file or a driver brings does its worst."""
    record = full_record()
    bad = replace(
        record.measured,
        bundle=HOSTILE,
        family=HOSTILE,
        policy=HOSTILE,
        device=HOSTILE,
        stages=(StageInfo(HOSTILE, HOSTILE, HOSTILE, None, None),),
        image_inputs={HOSTILE: HOSTILE},
    )
    samples = tuple(
        replace(sample, name=HOSTILE, jpeg_base64='"><script>alert(2)</script>')
        for sample in record.pictures.samples
    )
    spans = tuple(replace(span, name=HOSTILE) for span in spans_of(0.5))
    entry = replace(record.scenarios[0], spans=spans)
    against = baselines()
    return replace(
        record,
        command=HOSTILE,
        written_by=HOSTILE,
        started_utc=HOSTILE,
        clock=HOSTILE,
        measured=bad,
        pictures=replace(record.pictures, what=HOSTILE, samples=samples, sizes={HOSTILE: 3}),
        machine=replace(record.machine, cpu=HOSTILE, versions={HOSTILE: HOSTILE}),
        log=replace(record.log, throttled=(HOSTILE,), missing={HOSTILE: HOSTILE}),
        yardstick=replace(record.yardstick, what=HOSTILE),
        scenarios=(entry, *record.scenarios[1:]),
        baselines=replace(
            against,
            times=tuple(replace(t, name=HOSTILE, what=HOSTILE) for t in against.times),
            ratios=tuple(replace(r, baseline=HOSTILE) for r in against.ratios),
            memory=tuple(replace(m, name=HOSTILE) for m in against.memory),
            unavailable={HOSTILE: HOSTILE},
        ),
        energy=Energy(HOSTILE, 1.0, (0.1, 0.2)),
        missing={HOSTILE: HOSTILE},
    )
