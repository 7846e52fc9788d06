"""Records of which only the times matter, drawn from a machine of known noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dyninfer.benchmarks.latency.record import (
    BenchRecord,
    MeasuredBundle,
    PicturesRecord,
    StageInfo,
    Yardstick,
)
from dyninfer.benchmarks.latency.scenario_record import (
    Distribution,
    Estimate,
    Scenario,
    ScenarioResult,
    WarmUp,
)
from dyninfer.benchmarks.machine import Machine, MachineLog

EASY, HARD = Scenario(hard_fraction=0.0), Scenario(hard_fraction=1.0)
Rounds = Sequence[Sequence[float]]


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def drawn_rounds(
    rng: np.random.Generator,
    ms: float,
    rounds: int = 12,
    calls: int = 10,
    between: float = 0.02,
    within: float = 0.05,
) -> Rounds:
    """Every round has a pace of its own, which all of its calls share."""
    pace = np.exp(between * rng.standard_normal((rounds, 1)))
    return (ms * pace * np.exp(within * rng.standard_normal((rounds, calls)))).tolist()


def result_of(scenario: Scenario, rounds_ms: Rounds) -> ScenarioResult:
    calls = np.concatenate([np.asarray(calls, np.float64) for calls in rounds_ms])
    mean, median = exactly(float(calls.mean())), exactly(float(np.median(calls)))
    latency = Distribution(
        len(calls), mean, float(calls.min()), float(calls.max()), median, None, None, None
    )
    per_image = exactly(mean.value / scenario.batch)
    return ScenarioResult(
        scenario,
        scenario.hard_fraction or 0.0,
        WarmUp(3, 0.1, True),
        latency,
        per_image,
        exactly(1e3 / per_image.value),
        (),
        (),
        tuple(tuple(calls) for calls in rounds_ms),
    )


def record_of(
    times: Mapping[Scenario, Rounds], yardstick_ms: Sequence[float] = (5.0,) * 12
) -> BenchRecord:
    return BenchRecord(
        schema_version=2,
        written_by="a test",
        command="dyninfer bench two.dyn",
        started_utc="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        clock="perf_counter_ns",
        measured=MeasuredBundle(
            bundle="two",
            family="tiny",
            manifest_sha256="0" * 64,
            exits=2,
            image_inputs={"images": "8x8"},
            stages=(StageInfo("first", "body", "fp32", 1, 1),),
            backend="onnxruntime",
            backend_version="1.0",
            provider="cpu",
            device="cpu",
            policy="threshold 0.5",
            ways=("exit 0", "exit 1"),
        ),
        pictures=PicturesRecord("synthetic pictures, 8x8", 4, {"8x8": 4}),
        machine=Machine("a processor", 2, (), 8.0, "Linux", "CPython 3.11", {"numpy": "2.0"}, 0.1),
        log=MachineLog(1.0, 2, {}),
        peak_memory_mib=100.0,
        yardstick=Yardstick("a product", tuple(yardstick_ms), float(np.median(yardstick_ms))),
        scenarios=tuple(result_of(scenario, rounds) for scenario, rounds in times.items()),
    )
