"""How the pictures' easiness is spread, with a line for the threshold that a slider moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.benchmarks.report import axes
from dyninfer.benchmarks.report.figures import counted
from dyninfer.benchmarks.report.scales import Scale
from dyninfer.benchmarks.report.svg import (
    NARROW,
    WIDE,
    Chart,
    Element,
    Frame,
    drawing,
    element,
    line,
    rect,
    text,
)

BINS = 25
_HEIGHTS = {WIDE: 220, NARROW: 220}
_SIDE = 64  # for the words beside the line, wherever it stands


@dataclass(frozen=True)
class Histogram:
    """How many pictures lie in each of :data:`BINS` equal parts of [0, 1]."""

    counts: tuple[int, ...]
    unknown: int


def histogram(easiness: Sequence[float | None]) -> Histogram:
    """Count one router's easiness; values outside [0, 1] go to the outermost parts."""
    known = [e for e in easiness if e is not None and not math.isnan(e)]
    counts, _ = np.histogram(np.clip(known, 0, 1), bins=BINS, range=(0, 1))
    return Histogram(tuple(map(int, counts)), len(easiness) - len(known))


@dataclass(frozen=True)
class EasinessChart:
    """The histogram of one router, and where the line stands at each threshold."""

    chart: Chart
    unknown: int
    wide: tuple[float, ...]
    narrow: tuple[float, ...]


def easiness_chart(
    easiness: Sequence[float | None], router: int, thresholds: Sequence[float], start: int
) -> EasinessChart:
    """Draw one router's histogram.

    Args:
        easiness: of every picture; None for NaN.
        router: its position, from 0.
        thresholds: at which the line can stand; there may be none, and then there is no line.
        start: which of them it stands at first.
    """
    counts = histogram(easiness)
    wide, wide_lines = _drawn(counts, router, thresholds, start, WIDE)
    narrow, narrow_lines = _drawn(counts, router, thresholds, start, NARROW)
    return EasinessChart(
        Chart(wide, narrow), counts.unknown, tuple(wide_lines), tuple(narrow_lines)
    )


def _drawn(
    counts: Histogram, router: int, thresholds: Sequence[float], start: int, width: int
) -> tuple[Element, list[float]]:
    frame = Frame(width, _HEIGHTS[width], left=_SIDE, right=_SIDE, top=44)
    x = Scale(0, 1, frame.left, frame.x_end)
    y = Scale(0, max(5, 1.05 * max(counts.counts)), frame.y_end, frame.top)
    bars = []
    for index, count in enumerate(counts.counts):
        left, right = x(index / BINS), x((index + 1) / BINS)
        hint = f"{counted(count, 'image')} from {index / BINS:.2f} to {(index + 1) / BINS:.2f}"
        if count:
            bars.append(rect(left + 0.5, y(count), right - left - 1, y(0) - y(count), "bar", hint))
    lines = [x(threshold) for threshold in thresholds]
    mark = [_threshold_line(lines[start], frame, router, width)] if lines else []
    peak = int(np.argmax(counts.counts))
    description = (
        f"Most images, {counts.counts[peak]} of {sum(counts.counts)}, have an easiness "
        f"from {peak / BINS:.2f} to {(peak + 1) / BINS:.2f}."
    )
    return (
        drawing(
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


def _threshold_line(x: float, frame: Frame, router: int, width: int) -> Element:
    return element(
        "g",
        line(0, frame.top - 8, 0, frame.y_end, "threshold"),
        text(-6, frame.top - 12, "\N{LEFTWARDS ARROW} go on", anchor="end", class_="label halo"),
        text(6, frame.top - 12, "leave \N{RIGHTWARDS ARROW}", class_="label halo"),
        data_moves=f"threshold-{router}-{width}",
        transform=f"translate({x:.2f} 0)",
    )
