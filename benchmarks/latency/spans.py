"""Where the time of a scenario went, from what the runtime says of every image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dyninfer.benchmarks.latency.scenario_record import SpanKind, SpanTime
from dyninfer.benchmarks.latency.slices import Slice
from dyninfer.benchmarks.latency.statistics import ratio_estimate
from dyninfer.spans import COPY, DECODE, GATHER, OTHER, POSTPROCESS, PREPARE, READ_BACK

_BEFORE = {DECODE: SpanKind.DECODE, PREPARE: SpanKind.PREPARE, COPY: SpanKind.COPY}
_AFTER = {
    GATHER: SpanKind.COPY,
    READ_BACK: SpanKind.READ_BACK,
    POSTPROCESS: SpanKind.POSTPROCESS,
    OTHER: SpanKind.OTHER,
}


@dataclass(frozen=True)
class SliceSpans:
    """Milliseconds of each span in a slice, all images together, and how many had it."""

    ms: Mapping[str, float]
    images: Mapping[str, int]


def spans_of_slice(piece: Slice) -> SliceSpans:
    """Sum the steps of all images; ``other`` is what their calls took beyond them.

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
    return SliceSpans(ms, images)


def span_times(slices: Sequence[Slice], stages: Sequence[str]) -> tuple[SpanTime, ...]:
    """The spans of a scenario, in the order in which they happen; of a slice for each round."""
    found = [spans_of_slice(piece) for piece in slices]
    images = [piece.images for piece in slices]
    names = {name for spans in found for name in spans.ms}
    times = []
    for name in in_order(names, stages):
        spent = [spans.ms.get(name, 0.0) for spans in found]
        count = sum(spans.images.get(name, 0) for spans in found)
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
