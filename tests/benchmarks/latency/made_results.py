"""Scenario results as a detector of known costs would give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dyninfer.benchmarks.latency.scenario_record import (
    Distribution,
    Estimate,
    Scenario,
    ScenarioResult,
    SpanKind,
    SpanTime,
    WarmUp,
)
from dyninfer.benchmarks.latency.scenarios import hard_rows_by_call
from dyninfer.benchmarks.latency.step_costs import RunsFor, StepCost

Noise = Callable[[], float]
GRID = tuple((batch, hard) for batch in (1, 2, 4, 8) for hard in (0.0, 0.25, 0.5, 1.0))

TWO_EXITS = (
    StepCost("prepare", 1.25, 1.0),
    StepCost("first", 10.0, 8.0),
    StepCost("router", 0.5, 0.0),
    StepCost("head", 4.0, 3.0, RunsFor.EASY),
    StepCost("second", 16.0, 12.0, RunsFor.HARD),
    StepCost("gather", 0.75, 0.25, RunsFor.MIXED),
    StepCost("postprocess", 1.0, 1.0, RunsFor.EASY),
    StepCost("postprocess", 2.0, 2.0, RunsFor.HARD),
    StepCost("other", 0.625, 0.125),
)
"""Of the bundle that ``support.write_two_exits`` writes."""


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def rows_of(part: RunsFor, batch: int, hard: int) -> int:
    mixed = batch if 0 < hard < batch else 0
    return {
        RunsFor.ALL: batch,
        RunsFor.EASY: batch - hard,
        RunsFor.HARD: hard,
        RunsFor.MIXED: mixed,
    }[part]


def made_result(
    steps: Sequence[StepCost],
    scenario: Scenario,
    counts: Sequence[int],
    noise: Noise = lambda: 1.0,
) -> ScenarioResult:
    """Calls with ``counts`` hard rows, each step's time in each call times a draw of ``noise``."""
    batch, images = scenario.batch, scenario.batch * len(counts)
    spent: dict[str, float] = {}
    seen: dict[str, int] = {}
    for hard in counts:
        for step in steps:
            if rows := rows_of(step.runs_for, batch, hard):
                cost = (step.first_ms + step.further_ms * (rows - 1)) * noise()
                spent[step.name] = spent.get(step.name, 0.0) + cost
                seen[step.name] = seen.get(step.name, 0) + rows
    spans = tuple(
        SpanTime(
            name,
            SpanKind.OTHER,
            exactly(spent[name] / images),
            spent[name] / seen[name],
            seen[name] / images,
        )
        for name in dict.fromkeys(step.name for step in steps)
        if name in spent
    )
    total = exactly(sum(spent.values()) / images)
    latency = Distribution(len(counts), total, 0.0, 0.0, total, None, None, None)
    return ScenarioResult(
        scenario=scenario,
        hard_fraction=sum(counts) / images,
        warm_up=WarmUp(0, 0.0, True),
        latency=latency,
        ms_per_image=total,
        images_per_s=exactly(1e3 / total.value),
        spans=spans,
        exits=(),
        rounds_ms=(),
    )


def forced_results(
    steps: Sequence[StepCost],
    grid: Sequence[tuple[int, float]] = GRID,
    noise: Noise = lambda: 1.0,
) -> list[ScenarioResult]:
    """As with forced fractions, in one period of each or 20 calls."""
    found = []
    for batch, hard in grid:
        period = hard_rows_by_call(hard, batch).tolist()
        counts = period * max(1, 20 // len(period))
        found.append(made_result(steps, Scenario(batch, hard), counts, noise))
    return found


def routed_result(
    steps: Sequence[StepCost], batch: int, hard: float, calls: int = 4000
) -> ScenarioResult:
    """Every image hard or not by chance."""
    counts = np.random.default_rng(1).binomial(batch, hard, calls).tolist()
    return made_result(steps, Scenario(batch), counts)
