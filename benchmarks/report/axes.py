"""Axes: round numbers to mark, scales, and how they are drawn: a line, grid lines, a title."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dyninfer.benchmarks.report.svg import Element, Frame, element, line, text, text_width
from dyninfer.errors import InputError

_TICK_GAP = 18
_TITLE_GAP = 38
_LABEL_ROOM = 1.6
MANTISSAS = (1, 2, 5)
_LOG_MANTISSAS = (MANTISSAS, (1,))
_MIN_LOG_TICKS = 3
_EDGE = 1e-9  # of a step: what rounding may cost a tick on the very edge of the range


@dataclass(frozen=True)
class Ticks:
    """Values to mark on an axis, ascending, and as many decimals as tell them apart."""

    values: tuple[float, ...]
    decimals: int

    def labels(self) -> tuple[str, ...]:
        """The values as text, all with the same decimals."""
        return tuple(f"{value:,.{self.decimals}f}" for value in self.values)


def linear_ticks(low: float, high: float, most: int = 6) -> Ticks:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], as many as fit into ``most``.

    With a ``most`` from 5 up there are at least two.

    Raises:
        InputError: the range is empty.
    """
    _check_range(low, high)
    exponent = math.floor(math.log10((high - low) / most)) - 1
    while True:
        for mantissa in MANTISSAS:
            step = mantissa * 10.0**exponent
            first, last = math.ceil(low / step - _EDGE), math.floor(high / step + _EDGE)
            if last - first < most:
                values = tuple(_times(n * mantissa, exponent) for n in range(first, last + 1))
                return Ticks(values, max(0, -exponent))
        exponent += 1


def log_ticks(low: float, high: float, most: int = 6) -> Ticks:
    """1, 2 and 5 times powers of ten in [low, high]; powers alone, or every other, if too many.

    Where a range is too narrow for three of these, ticks are as on a linear axis.

    Raises:
        InputError: the range is empty or not positive.
    """
    _check_range(low, high)
    if low <= 0:
        raise InputError(f"a logarithmic axis starts at {low:g}, expected above 0")
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in _LOG_MANTISSAS:
        marks = [(m, e) for e in decades for m in mantissas if _within(_times(m, e), low, high)]
        if _MIN_LOG_TICKS <= len(marks) <= most:
            return _log_marks(marks)
    if len(marks) > most:
        return _log_marks(marks[:: math.ceil(len(marks) / most)])
    return linear_ticks(low, high, most)


def _within(value: float, low: float, high: float) -> bool:
    return low * (1 - _EDGE) <= value <= high * (1 + _EDGE)


def _log_marks(marks: list[tuple[int, int]]) -> Ticks:
    values = tuple(_times(mantissa, exponent) for mantissa, exponent in marks)
    return Ticks(values, max(0, -min(exponent for _, exponent in marks)))


def _times(whole: int, exponent: int) -> float:
    # dividing by a power of ten rounds once; multiplying by 0.1 would round twice
    if exponent < 0:
        return float(whole / 10**-exponent)
    return float(whole * 10**exponent)


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"an axis runs from {low} to {high}, expected two finite rising numbers")


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] on an axis from ``start`` to ``end``, in the drawing's units.

    Values outside are moved to the nearest end.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where ``value`` lies."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> Ticks:
        """Round numbers within its range."""
        if self.log:
            return log_ticks(self.low, self.high, most)
        return linear_ticks(self.low, self.high, most)


def padded(values: Iterable[float], share: float = 0.06, log: bool = False) -> tuple[float, float]:
    """A range that holds ``values``, at least one, with room beside the outermost.

    Where all are equal, or there is hardly a difference, the range is widened around them so that
    noise does not fill the chart. ``share`` of the range is left free at each end.
    """
    found = list(values)
    low, high = min(found), max(found)
    if log:
        factor = max(high / low, 1.05) ** share * (1.02 if high / low < 1.05 else 1)
        return low / factor, high * factor
    room = share * (high - low)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        room = max(abs(low), abs(high)) * share or 1.0
    return low - room, high + room


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
