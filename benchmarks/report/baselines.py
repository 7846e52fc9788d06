"""dyninfer's time over its baselines', as dots with their intervals on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import BaselineRatio
from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.figures import interval, number
from dyninfer.benchmarks.report.scales import Scale, padded

_ROW, _HEAD = 30, 34
_LABEL_WIDTH, _FIGURE_WIDTH = 250, 170


def sides_of(ratios: Sequence[BaselineRatio]) -> list[str]:
    """The sides in the order in which they were measured."""
    return list(dict.fromkeys(ratio.side for ratio in ratios))


def baselines_chart(ratios: Sequence[BaselineRatio]) -> svg.Chart:
    """One row for each baseline, grouped by side."""
    return svg.Chart(_drawn(ratios, svg.WIDE), _drawn(ratios, svg.NARROW))


def _drawn(ratios: Sequence[BaselineRatio], width: int) -> svg.Element:
    narrow = width == svg.NARROW
    sides = sides_of(ratios)
    row = _ROW + (16 if narrow else 0)
    frame = svg.Frame(
        width,
        row * len(ratios) + _HEAD * len(sides) + 84,
        left=16 if narrow else _LABEL_WIDTH,
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
            rows += _row(entry, x, y, frame, narrow=narrow)
            y += row
    return svg.drawing(
        frame,
        f"baselines-{width}",
        "dyninfer's time over that of each baseline",
        "; ".join(_in_words(entry) for entry in ratios) + ". Below 1, dyninfer is faster.",
        axes.horizontal(x, frame, "time of dyninfer over the baseline's, logarithmic"),
        svg.line(x(1), frame.top - 6, x(1), frame.y_end, "unity"),
        svg.text(x(1) - 8, 14, "\N{LEFTWARDS ARROW} dyninfer faster", anchor="end"),
        svg.text(x(1) + 8, 14, "slower \N{RIGHTWARDS ARROW}"),
        *rows,
    )


def _row(
    entry: BaselineRatio, x: Scale, top: float, frame: svg.Frame, *, narrow: bool
) -> list[svg.Element]:
    ratio = entry.ratio
    figure = f"{number(ratio.median)} ({interval(ratio)})"
    hint = f"{entry.baseline}: {figure}"
    y = top + (_ROW if narrow else _ROW / 2)
    if narrow:
        # the interval is in the table; here it would run into the name
        figure = number(ratio.median)
        room = frame.width - 90
        names = [
            svg.text(x.start, top + 12, svg.shortened(entry.baseline, room), class_="label halo"),
            svg.text(frame.x_end, top + 12, figure, anchor="end", class_="label figure halo"),
        ]
    else:
        name = svg.shortened(entry.baseline, _LABEL_WIDTH - 16)
        names = [
            svg.text(frame.left - 12, y + 4, name, anchor="end"),
            svg.text(frame.width, y + 4, figure, anchor="end", class_="label figure"),
        ]
    left, right = x(ratio.low), x(ratio.high)
    return [
        *names,
        svg.rect(left, y - 3, max(right - left, 1), 6, "interval"),
        svg.circle(x(ratio.median), y, 5, "dot-0", hint),
    ]


def _in_words(entry: BaselineRatio) -> str:
    return f"{entry.baseline}, {entry.side}: {number(entry.ratio.median)}"
