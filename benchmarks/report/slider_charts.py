"""Charts with a mark that the page's slider moves: accuracy against time, and easiness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.benchmarks.latency.record import ThresholdPoint
from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.axes import Scale, padded
from dyninfer.benchmarks.report.figures import ms, percent
from dyninfer.plain_text import counted

BINS = 25
_CURVE_HEIGHTS = {svg.WIDE: 360, svg.NARROW: 280}
_DOTS_UP_TO = 60
_MIN_RANGE = 0.5
_HISTOGRAM_HEIGHT = 220
_SIDE = 64  # for the words beside the line, wherever it stands
_HALO = "label halo"


@dataclass(frozen=True)
class Quality:
    """What stands for accuracy on a curve: its name, its axis, its value at each point."""

    name: str
    axis: str
    values: tuple[float, ...]

    def words(self, index: int) -> str:
        """The value at a point, in per cent or in points of AP."""
        value = self.values[index]
        return f"{100 * value:.1f}" if self.name == "AP" else percent(value, 1)


def quality_of(curve: Sequence[ThresholdPoint]) -> Quality | None:
    """AP where every point has it, else the agreement with the last exit, else nothing."""
    ap = tuple(point.ap for point in curve if point.ap is not None)
    if curve and len(ap) == len(curve):
        return Quality("AP", "AP", ap)
    agreement = tuple(point.agreement for point in curve if point.agreement is not None)
    if curve and len(agreement) == len(curve):
        return Quality("Agreement", "agreement with the last exit (%)", agreement)
    return None


def curve_chart(curve: Sequence[ThresholdPoint], quality: Quality, start: int) -> svg.Chart:
    """Quality against milliseconds, with the mark at point ``start``."""
    return svg.moving_chart("marker", lambda width: _curve_drawn(curve, quality, start, width))


def _curve_drawn(
    curve: Sequence[ThresholdPoint], quality: Quality, start: int, width: int
) -> tuple[svg.Element, list[svg.Point]]:
    frame = svg.Frame(width, _CURVE_HEIGHTS[width], right=24)
    percents = [100 * value for value in quality.values]
    low, high = padded(percents, share=0.16)
    if high - low < _MIN_RANGE:  # noise is not to fill the chart
        low, high = low - _MIN_RANGE, high + _MIN_RANGE
    left, right = padded([point.mean_ms for point in curve], share=0.08)
    x = Scale(left, right, frame.left, frame.x_end)
    y = Scale(low, high, frame.y_end, frame.top)
    points = [(x(p.mean_ms), y(v)) for p, v in zip(curve, percents, strict=True)]
    description = (
        f"{quality.name} from {quality.words(0)} at {ms(curve[0].mean_ms)} per image, all easy, "
        f"to {quality.words(len(curve) - 1)} at {ms(curve[-1].mean_ms)}, all hard."
    )
    return (
        svg.drawing(
            frame,
            f"curve-{width}",
            f"{quality.name} against milliseconds per image",
            description,
            axes.vertical(y, frame, quality.axis),
            axes.horizontal(x, frame, "mean ms per image, batch 1"),
            svg.polyline(points, "curve"),
            *_dots(curve, quality, points),
            *_end_labels(points, frame),
            svg.movable(
                f"marker-{width}",
                points[start],
                svg.circle(0, 0, 10, "marker-halo"),
                svg.circle(0, 0, 6.5, "marker"),
            ),
        ),
        points,
    )


def _dots(
    curve: Sequence[ThresholdPoint], quality: Quality, points: Sequence[svg.Point]
) -> list[svg.Element]:
    if len(points) > _DOTS_UP_TO:
        return []
    return [
        svg.circle(
            *place,
            2.5,
            "curve-dot",
            f"{percent(point.hard_fraction)} hard: {quality.name} {quality.words(index)}, "
            f"{ms(point.mean_ms)}",
        )
        for index, (point, place) in enumerate(zip(curve, points, strict=True))
    ]


def _end_labels(points: Sequence[svg.Point], frame: svg.Frame) -> list[svg.Element]:
    """Name the two ends below the curve: the first to its right, the last centred."""
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    labels = [svg.text(first_x + 12, min(first_y + 16, frame.y_end - 6), "all easy", class_=_HALO)]
    if len(set(points)) > 1:
        x = min(last_x, frame.x_end - svg.text_width("all hard") / 2)
        labels.append(svg.text(x, last_y + 26, "all hard", anchor="middle", class_=_HALO))
    return labels


def histogram(easiness: Sequence[float | None]) -> tuple[int, ...]:
    """How many pictures lie in each of :data:`BINS` equal parts of [0, 1] by one router.

    Values outside [0, 1] go to the outermost parts; those that are not known are not counted.
    """
    known = [e for e in easiness if e is not None and not math.isnan(e)]
    counts, _ = np.histogram(np.clip(known, 0, 1), bins=BINS, range=(0, 1))
    return tuple(map(int, counts))


def easiness_chart(
    easiness: Sequence[float | None], router: int, thresholds: Sequence[float], start: int
) -> svg.Chart:
    """Draw one router's histogram, with a line at ``thresholds[start]`` if there are any.

    An easiness that is None was NaN.
    """
    counts = histogram(easiness)
    return svg.moving_chart(
        f"threshold-{router}",
        lambda width: _histogram_drawn(counts, router, thresholds, start, width),
    )


def _histogram_drawn(
    counts: Sequence[int], router: int, thresholds: Sequence[float], start: int, width: int
) -> tuple[svg.Element, list[svg.Point]]:
    frame = svg.Frame(width, _HISTOGRAM_HEIGHT, left=_SIDE, right=_SIDE, top=44)
    x = Scale(0, 1, frame.left, frame.x_end)
    y = Scale(0, max(5, 1.05 * max(counts)), frame.y_end, frame.top)
    bars = []
    for index, count in enumerate(counts):
        left, right = x(index / BINS), x((index + 1) / BINS)
        hint = f"{counted(count, 'image')} from {index / BINS:.2f} to {(index + 1) / BINS:.2f}"
        if count:
            bars.append(
                svg.rect(left + 0.5, y(count), right - left - 1, y(0) - y(count), "bar", hint)
            )
    lines = [(x(threshold), 0.0) for threshold in thresholds]
    name = f"threshold-{router}-{width}"
    mark = [svg.movable(name, lines[start], *_threshold_line(frame))] if lines else []
    peak = int(np.argmax(counts))
    description = (
        f"Most images, {counts[peak]} of {sum(counts)}, have an easiness "
        f"from {peak / BINS:.2f} to {(peak + 1) / BINS:.2f}."
    )
    return (
        svg.drawing(
            frame,
            f"easiness-{router}-{width}",
            f"How many images have which easiness, router of exit {router}",
            description,
            axes.vertical(y, frame, "images"),
            axes.horizontal(x, frame, "easiness"),
            *bars,
            *mark,
        ),
        lines,
    )


def _threshold_line(frame: svg.Frame) -> tuple[svg.Element, ...]:
    return (
        svg.line(0, frame.top - 8, 0, frame.y_end, "threshold"),
        svg.text(-6, frame.top - 12, "\N{LEFTWARDS ARROW} go on", anchor="end", class_=_HALO),
        svg.text(6, frame.top - 12, "leave \N{RIGHTWARDS ARROW}", class_=_HALO),
    )
