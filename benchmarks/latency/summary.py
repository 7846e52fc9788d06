"""The figures of a scenario, made of its slices."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.scenario_record import (
    ExitTime,
    Scenario,
    ScenarioResult,
    WarmUp,
)
from dyninfer.benchmarks.latency.slices import Slice
from dyninfer.benchmarks.latency.spans import span_times
from dyninfer.benchmarks.latency.statistics import distribution, inverse, ratio_estimate
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import InputError


def summarise(
    scenario: Scenario,
    warm_up: WarmUp,
    slices: Sequence[Slice],
    manifest: Manifest,
    joules_per_image: float | None = None,
) -> ScenarioResult:
    """Figures of one scenario, from a slice for each round in which it had calls.

    Raises:
        InputError: no call was made.
    """
    slices = [piece for piece in slices if piece.calls]
    if not slices:
        raise InputError(f"{scenario.name} had no calls, expected at least one")
    exits = [index for piece in slices for call in piece.calls for index in call.exits]
    rounds_ms = tuple(tuple(call.latency_ms for call in piece.calls) for piece in slices)
    per_image = ratio_estimate([p.wall_ms for p in slices], [p.images for p in slices])
    late = [call.late for piece in slices for call in piece.calls]
    return ScenarioResult(
        scenario=scenario,
        hard_fraction=exits.count(len(manifest.ways) - 1) / len(exits),
        warm_up=warm_up,
        latency=distribution(rounds_ms),
        ms_per_image=per_image,
        images_per_s=inverse(per_image, 1e3),
        spans=span_times(slices, manifest.route.stages),
        exits=tuple(_exit_time(index, slices, exits) for index in range(len(manifest.ways))),
        rounds_ms=rounds_ms,
        late_share=None if scenario.rate_per_s is None else sum(late) / len(late),
        joules_per_image=joules_per_image,
    )


def _exit_time(index: int, slices: Sequence[Slice], exits: Sequence[int]) -> ExitTime:
    """Calls all of whose images left at one exit."""
    rounds_ms = [
        [call.latency_ms for call in piece.calls if set(call.exits) == {index}] for piece in slices
    ]
    return ExitTime(
        exit_index=index,
        share=exits.count(index) / len(exits),
        latency=distribution(rounds_ms) if any(rounds_ms) else None,
    )
