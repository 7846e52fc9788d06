"""Charts of a row for each thing: where time goes, and the time over that of the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dyninfer.benchmarks.latency.record import BaselineRatio
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult, SpanKind, SpanTime
from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.axes import Scale, padded
from dyninfer.benchmarks.report.figures import interval, ms, number, percent
from dyninfer.plain_text import counted

SMALL = 0.02
_BAR = 24
_SPAN_ROW = {svg.WIDE: 36, svg.NARROW: 54}
_SPAN_LABEL, _TOTAL_WIDTH = 272, 78
_RATIO_ROW = {svg.WIDE: 30, svg.NARROW: 46}
_RATIO_LABEL, _FIGURE_WIDTH = 250, 170
_HEAD = 34


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


def kinds_of(results: Sequence[ScenarioResult]) -> list[SpanKind]:
    """The kinds that bars of these scenarios show, in the order of :class:`SpanKind`."""
    found = {segment.kind for result in results for segment in segments(result.spans)}
    return [kind for kind in SpanKind if kind in found]


def spans_chart(results: Sequence[ScenarioResult]) -> svg.Chart:
    """Bars of mean milliseconds per image, to one scale."""
    return svg.Chart(_spans_drawn(results, svg.WIDE), _spans_drawn(results, svg.NARROW))


def _spans_drawn(results: Sequence[ScenarioResult], width: int) -> svg.Element:
    narrow = width == svg.NARROW
    row = _SPAN_ROW[width]
    frame = svg.Frame(
        width,
        row * len(results) + 66,
        left=8 if narrow else _SPAN_LABEL,
        right=_TOTAL_WIDTH,
        top=8,
        bottom=50,
    )
    longest = max(sum(s.ms for s in segments(result.spans)) for result in results)
    x = Scale(0, longest or 1, frame.left, frame.x_end)
    bars = []
    for index, result in enumerate(results):
        y = frame.top + row * index + (row - _BAR if narrow else (row - _BAR) / 2)
        bars.append(_row_name(result.name, frame, y - 8, y + 17, svg.NARROW - 16))
        bars += _bar(result, x, y)
    description = "; ".join(_spans_in_words(result) for result in results) + "."
    return svg.drawing(
        frame,
        f"spans-{width}",
        "Mean milliseconds per image by step",
        description,
        axes.horizontal(x, frame, "mean ms per image"),
        *bars,
    )


def _row_name(
    name: str, frame: svg.Frame, above: float, beside: float, room_above: float
) -> svg.Element:
    """The name of a row: left of it, or above it where the drawing is narrow."""
    if frame.width == svg.NARROW:
        return svg.text(frame.left, above, svg.shortened(name, room_above), class_="label halo")
    return svg.text(frame.left - 12, beside, svg.shortened(name, frame.left - 16), anchor="end")


def _bar(result: ScenarioResult, x: Scale, y: float) -> list[svg.Element]:
    drawn = []
    at = 0.0
    for segment in segments(result.spans):
        left, right, kind = x(at), x(at + segment.ms), segment.kind.value
        at += segment.ms
        hint = f"{segment.name} ({kind}): {ms(segment.ms)}"
        width = max(right - left - 1, 0.5)  # a hair's breadth shows between two segments
        drawn.append(svg.rect(left, y, width, _BAR, f"segment kind-{kind}", hint))
        if svg.text_width(segment.name) + 12 < right - left:
            middle, style = (left + right) / 2, f"in-bar on-{kind}"
            drawn.append(svg.text(middle, y + 17, segment.name, anchor="middle", class_=style))
    drawn.append(svg.text(x(at) + 8, y + 17, ms(at), class_="label figure halo"))
    return drawn


def _spans_in_words(result: ScenarioResult) -> str:
    total = sum(span.ms_per_image.value for span in result.spans) or 1
    parts = ", ".join(
        f"{segment.name} {percent(segment.ms / total)}" for segment in segments(result.spans)
    )
    return f"{result.name}: {ms(total)}, of that {parts}"


def baselines_chart(ratios: Sequence[BaselineRatio]) -> svg.Chart:
    """One row for each baseline, grouped by side."""
    return svg.Chart(_baselines_drawn(ratios, svg.WIDE), _baselines_drawn(ratios, svg.NARROW))


def _baselines_drawn(ratios: Sequence[BaselineRatio], width: int) -> svg.Element:
    narrow = width == svg.NARROW
    sides = list(dict.fromkeys(ratio.side for ratio in ratios))
    row = _RATIO_ROW[width]
    frame = svg.Frame(
        width,
        row * len(ratios) + _HEAD * len(sides) + 84,
        left=16 if narrow else _RATIO_LABEL,
        right=16 if narrow else _FIGURE_WIDTH,
        top=30,
        bottom=50,
    )
    ends = [end for entry in ratios for end in (entry.ratio.low, entry.ratio.high)]
    x = Scale(*padded([*ends, 1.0, 0.8, 1.25], log=True), frame.left, frame.x_end, log=True)
    rows, y = [], frame.top
    for side in sides:
        y += _HEAD
        rows.append(svg.text(0, y - 10, f"{side} images", class_="label strong"))
        for entry in (entry for entry in ratios if entry.side == side):
            rows += _row(entry, x, y, frame)
            y += row
    return svg.drawing(
        frame,
        f"baselines-{width}",
        "dyninfer's time over that of each baseline",
        "; ".join(_ratio_in_words(entry) for entry in ratios) + ". Below 1, dyninfer is faster.",
        axes.horizontal(x, frame, "time of dyninfer over the baseline's, logarithmic"),
        svg.line(x(1), frame.top - 6, x(1), frame.y_end, "unity"),
        svg.text(x(1) - 8, 14, "\N{LEFTWARDS ARROW} dyninfer faster", anchor="end"),
        svg.text(x(1) + 8, 14, "slower \N{RIGHTWARDS ARROW}"),
        *rows,
    )


def _row(entry: BaselineRatio, x: Scale, top: float, frame: svg.Frame) -> list[svg.Element]:
    ratio = entry.ratio
    figure = f"{number(ratio.median)} ({interval(ratio)})"
    hint = f"{entry.baseline}: {figure}"
    if frame.width == svg.NARROW:
        # the interval is in the table; here it would run into the name
        y, figure = top + 30, number(ratio.median)
        place = svg.text(frame.x_end, top + 12, figure, anchor="end", class_="label figure halo")
    else:
        y = top + 15
        place = svg.text(frame.width, y + 4, figure, anchor="end", class_="label figure")
    left, right = x(ratio.low), x(ratio.high)
    return [
        _row_name(entry.baseline, frame, top + 12, y + 4, frame.width - 90),
        place,
        svg.rect(left, y - 3, max(right - left, 1), 6, "interval"),
        svg.circle(x(ratio.median), y, 5, "dot-0", hint),
    ]


def _ratio_in_words(entry: BaselineRatio) -> str:
    return f"{entry.baseline}, {entry.side}: {number(entry.ratio.median)}"
