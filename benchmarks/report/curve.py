"""The curve of accuracy against time, with a mark that a slider moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dyninfer.benchmarks.latency.record import ThresholdPoint
from dyninfer.benchmarks.report import axes
from dyninfer.benchmarks.report.figures import ms, percent
from dyninfer.benchmarks.report.scales import Scale, padded
from dyninfer.benchmarks.report.svg import (
    NARROW,
    WIDE,
    Element,
    Frame,
    MovingChart,
    Point,
    circle,
    drawing,
    movable,
    moving_chart,
    polyline,
    text,
    text_width,
)

_HEIGHTS = {WIDE: 360, NARROW: 280}
_DOTS_UP_TO = 60
_MIN_RANGE = 0.5
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


def curve_chart(curve: Sequence[ThresholdPoint], quality: Quality, start: int) -> MovingChart:
    """Quality against milliseconds, with the mark at point ``start``."""
    return moving_chart("marker", lambda width: _drawn(curve, quality, start, width))


def _drawn(
    curve: Sequence[ThresholdPoint], quality: Quality, start: int, width: int
) -> tuple[Element, list[Point]]:
    frame = Frame(width, _HEIGHTS[width], right=24)
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
        drawing(
            frame,
            f"curve-{width}",
            f"{quality.name} against milliseconds per image",
            description,
            axes.vertical(y, frame, quality.axis),
            axes.horizontal(x, frame, "mean ms per image, batch 1"),
            polyline(points, "curve"),
            *_dots(curve, quality, points),
            *_end_labels(points, frame),
            movable(
                f"marker-{width}",
                points[start],
                circle(0, 0, 10, "marker-halo"),
                circle(0, 0, 6.5, "marker"),
            ),
        ),
        points,
    )


def _dots(
    curve: Sequence[ThresholdPoint], quality: Quality, points: Sequence[Point]
) -> list[Element]:
    if len(points) > _DOTS_UP_TO:
        return []
    return [
        circle(
            *place,
            2.5,
            "curve-dot",
            f"{percent(point.hard_fraction)} hard: {quality.name} {quality.words(index)}, "
            f"{ms(point.mean_ms)}",
        )
        for index, (point, place) in enumerate(zip(curve, points, strict=True))
    ]


def _end_labels(points: Sequence[Point], frame: Frame) -> list[Element]:
    """Name the two ends below the curve: the first to its right, the last centred."""
    (first_x, first_y), (last_x, last_y) = points[0], points[-1]
    labels = [text(first_x + 12, min(first_y + 16, frame.y_end - 6), "all easy", class_=_HALO)]
    if len(set(points)) > 1:
        x = min(last_x, frame.x_end - text_width("all hard") / 2)
        labels.append(text(x, last_y + 26, "all hard", anchor="middle", class_=_HALO))
    return labels
