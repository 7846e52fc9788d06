"""Where the time of an image goes: one stacked bar for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dyninfer.benchmarks.latency.scenario_record import ScenarioResult, SpanKind, SpanTime
from dyninfer.benchmarks.report import axes
from dyninfer.benchmarks.report.figures import counted, ms, percent
from dyninfer.benchmarks.report.scales import Scale
from dyninfer.benchmarks.report.svg import (
    NARROW,
    WIDE,
    Chart,
    Element,
    Frame,
    drawing,
    element,
    rect,
    shortened,
    text,
    text_width,
)

SMALL = 0.02
_BAR, _ROW = 24, 36
_NARROW_ROW = 54
_LABEL_WIDTH = 272
_TOTAL_WIDTH = 78
_PATTERN_SIZE = 7
_PATTERNS: dict[SpanKind, tuple[str, ...]] = {
    SpanKind.DECODE: ("M1.2 1.2h1.6v1.6h-1.6z",),
    SpanKind.PREPARE: ("M-1 8L8 -1", "M-4.5 4.5L4.5 -4.5", "M2.5 11.5L11.5 2.5"),
    SpanKind.COPY: ("M0 3.5H7",),
    SpanKind.READ_BACK: ("M3.5 0V7",),
    SpanKind.POSTPROCESS: ("M-1 -1L8 8", "M2.5 -4.5L11.5 4.5", "M-4.5 2.5L4.5 11.5"),
    SpanKind.OTHER: ("M0 3.5H7", "M3.5 0V7"),
}


@dataclass(frozen=True)
class Segment:
    """A part of a bar: one span, or the small ones together."""

    name: str
    kind: SpanKind
    ms: float


def segments(spans: Sequence[SpanTime]) -> list[Segment]:
    """Spans in their order; those under 2 % of the whole are added up at the end."""
    total = sum(span.ms_per_image.value for span in spans)
    found = [Segment(span.name, span.kind, span.ms_per_image.value) for span in spans]
    small = [segment for segment in found if segment.ms < SMALL * total]
    shown = [segment for segment in found if segment.ms >= SMALL * total]
    if len(small) > 1:
        rest = sum(segment.ms for segment in small)
        small = [Segment(counted(len(small), "small step"), SpanKind.OTHER, rest)]
    return [segment for segment in (*shown, *small) if segment.ms > 0]


def patterns() -> Element:
    """Definitions of the kinds' patterns, for the whole page."""
    made = (
        element(
            "pattern",
            rect(0, 0, _PATTERN_SIZE, _PATTERN_SIZE, f"fill-{kind.value}"),
            *(element("path", d=path, class_="hatch") for path in _PATTERNS.get(kind, ())),
            id=f"kind-{kind.value}",
            patternUnits="userSpaceOnUse",
            width=_PATTERN_SIZE,
            height=_PATTERN_SIZE,
        )
        for kind in SpanKind
    )
    definitions = element("defs", *made)
    return element("svg", definitions, width=0, height=0, aria_hidden="true", class_="definitions")


def swatch(kind: SpanKind) -> Element:
    """A small field in the kind's colour and pattern, for a legend."""
    field = rect(0, 0, 22, 14, f"segment kind-{kind.value}")
    return element("svg", field, width=22, height=14, aria_hidden="true", class_="swatch")


def kinds_of(results: Sequence[ScenarioResult]) -> list[SpanKind]:
    """The kinds that bars of these scenarios show, in the order of :class:`SpanKind`."""
    found = {segment.kind for result in results for segment in segments(result.spans)}
    return [kind for kind in SpanKind if kind in found]


def spans_chart(results: Sequence[ScenarioResult]) -> Chart:
    """Bars of mean milliseconds per image, to one scale."""
    return Chart(_drawn(results, WIDE), _drawn(results, NARROW))


def _drawn(results: Sequence[ScenarioResult], width: int) -> Element:
    narrow = width == NARROW
    row = _NARROW_ROW if narrow else _ROW
    frame = Frame(
        width,
        row * len(results) + 66,
        left=8 if narrow else _LABEL_WIDTH,
        right=_TOTAL_WIDTH,
        top=8,
        bottom=50,
    )
    longest = max(sum(s.ms for s in segments(result.spans)) for result in results)
    x = Scale(0, longest or 1, frame.left, frame.x_end)
    bars = []
    for index, result in enumerate(results):
        y = frame.top + row * index + (row - _BAR if narrow else (row - _BAR) / 2)
        bars += _bar(result, x, y, narrow=narrow)
    description = "; ".join(_in_words(result) for result in results) + "."
    return drawing(
        frame,
        f"spans-{width}",
        "Mean milliseconds per image by step",
        description,
        axes.horizontal(x, frame, "mean ms per image"),
        *bars,
    )


def _bar(result: ScenarioResult, x: Scale, y: float, *, narrow: bool) -> list[Element]:
    name = result.name
    if narrow:
        drawn = [text(x.start, y - 8, shortened(name, NARROW - 16), class_="label halo")]
    else:
        room = _LABEL_WIDTH - 16
        drawn = [text(x.start - 12, y + 17, shortened(name, room), anchor="end")]
    at = 0.0
    for segment in segments(result.spans):
        left, right = x(at), x(at + segment.ms)
        at += segment.ms
        hint = f"{segment.name} ({segment.kind.value}): {ms(segment.ms)}"
        # a hair's breadth of the page shows between two segments
        field = rect(
            left, y, max(right - left - 1, 0.5), _BAR, f"segment kind-{segment.kind.value}", hint
        )
        drawn.append(field)
        if text_width(segment.name) + 12 < right - left:
            style = f"in-bar on-{segment.kind.value}"
            drawn.append(
                text((left + right) / 2, y + 17, segment.name, anchor="middle", class_=style)
            )
    drawn.append(text(x(at) + 8, y + 17, ms(at), class_="label figure halo"))
    return drawn


def _in_words(result: ScenarioResult) -> str:
    total = sum(span.ms_per_image.value for span in result.spans) or 1
    parts = ", ".join(
        f"{segment.name} {percent(segment.ms / total)}" for segment in segments(result.spans)
    )
    return f"{result.name}: {ms(total)}, of that {parts}"
