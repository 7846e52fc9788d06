"""How the pictures' easiness is spread, with a line for the threshold that a slider moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dyninfer.benchmarks.report import axes
from dyninfer.benchmarks.report.figures import counted
from dyninfer.benchmarks.report.scales import Scale
from dyninfer.benchmarks.report.svg import (
    Element,
    Frame,
    MovingChart,
    Point,
    drawing,
    line,
    movable,
    moving_chart,
    rect,
    text,
)

BINS = 25
_HEIGHT = 220
_SIDE = 64  # for the words beside the line, wherever it stands


def histogram(easiness: Sequence[float | None]) -> tuple[int, ...]:
    """How many pictures lie in each of :data:`BINS` equal parts of [0, 1] by one router.

    Values outside [0, 1] go to the outermost parts; those that are not known are not counted.
    """
    known = [e for e in easiness if e is not None and not math.isnan(e)]
    counts, _ = np.histogram(np.clip(known, 0, 1), bins=BINS, range=(0, 1))
    return tuple(map(int, counts))


def easiness_chart(
    easiness: Sequence[float | None], router: int, thresholds: Sequence[float], start: int
) -> MovingChart:
    """Draw one router's histogram, with a line at ``thresholds[start]`` if there are any.

    An easiness that is None was NaN.
    """
    counts = histogram(easiness)
    return moving_chart(
        f"threshold-{router}", lambda width: _drawn(counts, router, thresholds, start, width)
    )


def _drawn(
    counts: Sequence[int], router: int, thresholds: Sequence[float], start: int, width: int
) -> tuple[Element, list[Point]]:
    frame = Frame(width, _HEIGHT, left=_SIDE, right=_SIDE, top=44)
    x = Scale(0, 1, frame.left, frame.x_end)
    y = Scale(0, max(5, 1.05 * max(counts)), frame.y_end, frame.top)
    bars = []
    for index, count in enumerate(counts):
        left, right = x(index / BINS), x((index + 1) / BINS)
        hint = f"{counted(count, 'image')} from {index / BINS:.2f} to {(index + 1) / BINS:.2f}"
        if count:
            bars.append(rect(left + 0.5, y(count), right - left - 1, y(0) - y(count), "bar", hint))
    lines = [(x(threshold), 0.0) for threshold in thresholds]
    name = f"threshold-{router}-{width}"
    mark = [movable(name, lines[start], *_threshold_line(frame))] if lines else []
    peak = int(np.argmax(counts))
    description = (
        f"Most images, {counts[peak]} of {sum(counts)}, have an easiness "
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


def _threshold_line(frame: Frame) -> tuple[Element, ...]:
    return (
        line(0, frame.top - 8, 0, frame.y_end, "threshold"),
        text(-6, frame.top - 12, "\N{LEFTWARDS ARROW} go on", anchor="end", class_="label halo"),
        text(6, frame.top - 12, "leave \N{RIGHTWARDS ARROW}", class_="label halo"),
    )
