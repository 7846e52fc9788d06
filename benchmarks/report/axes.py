"""Axes: a line of round numbers, faint grid lines, a title that names the unit."""

from __future__ import annotations

from collections.abc import Iterable

from dyninfer.benchmarks.report.scales import Scale
from dyninfer.benchmarks.report.svg import Element, Frame, element, line, text, text_width

_TICK_GAP = 18
_TITLE_GAP = 38
_LABEL_ROOM = 1.6


def horizontal(scale: Scale, frame: Frame, title: str) -> Element:
    """The axis below a chart, with grid lines over its whole height."""
    ticks = scale.ticks(_how_many(scale, frame))
    marks = []
    for value, label in zip(ticks.values, ticks.labels(), strict=True):
        x = scale(value)
        marks += [
            line(x, frame.top, x, frame.y_end, "grid"),
            text(x, frame.y_end + _TICK_GAP, label, anchor="middle", class_="tick"),
        ]
    base = line(frame.left, frame.y_end, frame.x_end, frame.y_end, "axis")
    name = text(frame.x_end, frame.y_end + _TITLE_GAP, title, anchor="end", class_="axis-title")
    return element("g", *marks, base, name)


def vertical(scale: Scale, frame: Frame, title: str) -> Element:
    """The axis left of a chart; its title stands above it, where it can be read."""
    ticks = scale.ticks(6)
    lines = rungs(scale, frame, zip(ticks.values, ticks.labels(), strict=True))
    return element("g", *lines, text(0, 14, title, class_="axis-title"))


def rungs(scale: Scale, frame: Frame, marks: Iterable[tuple[float, str]]) -> list[Element]:
    """Grid lines over the whole width at values, each with its label to the left."""
    drawn = []
    for value, label in marks:
        y = scale(value)
        drawn += [
            line(frame.left, y, frame.x_end, y, "grid"),
            text(frame.left - 8, y + 4, label, anchor="end", class_="tick"),
        ]
    return drawn


def _how_many(scale: Scale, frame: Frame) -> int:
    """As many ticks as have room for their labels, from 5 up."""
    widest = max(text_width(label) for label in scale.ticks(8).labels())
    return max(5, min(9, int((frame.x_end - frame.left) / (_LABEL_ROOM * widest))))
