"""The figures of a scenario, made of its slices: latencies, exits, and where the time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from dyninfer.benchmarks.latency.scenario_record import (
    ExitTime,
    Scenario,
    ScenarioResult,
    SpanKind,
    SpanTime,
    WarmUp,
)
from dyninfer.benchmarks.latency.slices import Slice
from dyninfer.benchmarks.latency.statistics import distribution, inverse, ratio_estimate
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import InputError
from dyninfer.spans import COPY, DECODE, GATHER, OTHER, POSTPROCESS, PREPARE, READ_BACK

_BEFORE = {DECODE: SpanKind.DECODE, PREPARE: SpanKind.PREPARE, COPY: SpanKind.COPY}
_AFTER = {
    GATHER: SpanKind.GATHER,
    READ_BACK: SpanKind.READ_BACK,
    POSTPROCESS: SpanKind.POSTPROCESS,
    OTHER: SpanKind.OTHER,
}


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
        hard_fraction=exits.count(manifest.ways_by_cost[-1]) / len(exits),
        warm_up=warm_up,
        latency=distribution(rounds_ms),
        ms_per_image=per_image,
        images_per_s=inverse(per_image, 1e3),
        spans=span_times(slices, list(manifest.roles)),
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


def spans_of_slice(piece: Slice) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """Milliseconds of each span, all images together, and how many had it.

    ``other`` is what their calls took beyond the steps of their images.
    On a GPU the device's own times can overlap with the host's, so that the steps add up to more
    than the call; nothing is left then.
    """
    ms: defaultdict[str, float] = defaultdict(float)
    images: defaultdict[str, int] = defaultdict(int)
    for call in piece.calls:
        own = 0.0
        for steps in call.timings_ms:
            for name, spent in steps.items():
                ms[name] += spent
                images[name] += 1
                own += spent
        ms[OTHER] += max(0.0, call.wall_ms - own)
    images[OTHER] = piece.images
    return ms, images


def span_times(slices: Sequence[Slice], stages: Sequence[str]) -> tuple[SpanTime, ...]:
    """The spans of a scenario, in the order in which they happen; of a slice for each round."""
    found = [spans_of_slice(piece) for piece in slices]
    images = [piece.images for piece in slices]
    names = {name for ms, _ in found for name in ms}
    times = []
    for name in in_order(names, stages):
        spent = [ms.get(name, 0.0) for ms, _ in found]
        count = sum(had.get(name, 0) for _, had in found)
        times.append(
            SpanTime(
                name=name,
                kind=_kind(name, stages),
                ms_per_image=ratio_estimate(spent, images),
                ms_when_run=sum(spent) / count,
                share=count / sum(images),
            )
        )
    return tuple(times)


def in_order(names: Collection[str], stages: Sequence[str]) -> list[str]:
    """The spans' names as they happen, ``stages`` being those of the bundle in order."""
    known = [*_BEFORE, *stages, *_AFTER]
    unknown = sorted(set(names).difference(known))
    return [name for name in (*known[:-1], *unknown, OTHER) if name in names]


def _kind(name: str, stages: Sequence[str]) -> SpanKind:
    if name in stages:
        return SpanKind.ENGINE
    return {**_BEFORE, **_AFTER}.get(name, SpanKind.OTHER)
