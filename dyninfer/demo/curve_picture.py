"""The curve as a picture: average precision against milliseconds, beside chance and an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dyninfer.errors import MissingExtra
from dyninfer.evaluation.routed_curve import CurveRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind tell apart; lines differ in their dashes too
_ROUTER, _RANDOM, _ORACLE = "#0072B2", "#7A7A7A", "#D55E00"
_SIZE_INCHES = (7.6, 5.0)
_DPI = 150
_MARGIN = 0.05  # of the range of an axis, as the next
_LABEL = 0.13  # room for the last mark's label


@dataclass(frozen=True)
class Mark:
    """A setting that was run: its label, mean milliseconds, and AP in [0, 1]."""

    label: str
    ms: float
    ap: float


def write_curve_picture(
    path: Path, rows: Sequence[CurveRow], marks: Sequence[Mark], title: str, machine: str
) -> None:
    """Draw AP against milliseconds per image as PNG, without any display.

    Rows and marks go from all easy to all hard; ``machine`` is where the times were taken.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            'drawing a curve needs matplotlib: pip install "dyninfer[demo]"'
        ) from error
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_lines(axes, rows)
    _draw_marks(axes, marks)
    axes.set_xlabel(f"milliseconds per image, one at a time\n{machine}")
    axes.set_ylabel("COCO AP (%)")
    axes.set_title(title, fontsize=11)
    axes.margins(_MARGIN)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + _LABEL * (right - left))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _draw_lines(axes: Axes, rows: Sequence[CurveRow]) -> None:
    ms = np.array([row.mean_ms for row in rows])
    mean = 100 * np.array([row.chance.mean for row in rows])
    std = 100 * np.array([row.chance.std for row in rows])
    axes.plot(ms, [100 * row.oracle for row in rows], "-.", color=_ORACLE, label="oracle")
    axes.plot(ms, [100 * row.score for row in rows], "-", color=_ROUTER, lw=2, label="router")
    axes.plot(ms, mean, "--", color=_RANDOM, label="random, ± one standard deviation")
    axes.fill_between(ms, mean - std, mean + std, color=_RANDOM, alpha=0.25, lw=0)


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    axes.plot(
        [mark.ms for mark in marks],
        [100 * mark.ap for mark in marks],
        "o",
        color=_ROUTER,
        label="settings that were run",
    )
    for number, mark in enumerate(marks):
        at_an_end = number in (0, len(marks) - 1)
        axes.annotate(
            mark.label,
            (mark.ms, 100 * mark.ap),
            # beside the ends, below the others: clear of the router's line
            xytext=(9, -4) if at_an_end else (9, -13),
            textcoords="offset points",
            fontsize=9,
        )
