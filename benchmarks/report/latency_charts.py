"""Charts of latencies: how calls' are spread, and what the latency model says of them.

The spread is the share of calls that took at most so long. Its vertical axis gives every further
nine of the share the same room (50, 90, 99, 99.9 %), so that a tail is as easy to see as the
middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dyninfer.benchmarks.latency.record import ModelCheck
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult
from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.axes import Scale, padded
from dyninfer.benchmarks.report.figures import ms, percent
from dyninfer.plain_text import counted

MOST_POINTS = 200
PANEL = 300  # wide
LONG_TAIL = 4
_SHARES = (
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
)
_LINES = 4  # styles of the style sheet
_LOG_RANGE = 1e12  # more decades cannot be read, and some quotients would not be numbers
_DOT_UP_TO = 12
_MODEL_HEIGHTS = {svg.WIDE: 360, svg.NARROW: 330}
_LOG_FROM = 8


def nines(share: float) -> float:
    """0 at 0 %, 1 at 90 %, 2 at 99 %, and so on; for shares below 1."""
    return -math.log10(1 - share)


def cumulative(times_ms: Sequence[float], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Ascending times and the share of the calls up to each, at most ``most`` of them.

    The i-th of n times, from 1, stands for the share (i - 0.5) / n (Hazen 1914), so that the
    slowest has one below 1. Where there are too many, those that are kept are spread evenly over
    the axis of nines; the fastest and the slowest are always among them.
    """
    ordered = np.sort(np.asarray(times_ms, np.float64))
    count = len(ordered)
    shares = (np.arange(count) + 0.5) / count
    kept = np.arange(count)
    if count > most:
        wanted = np.linspace(nines(shares[0]), nines(shares[-1]), most)
        kept = np.unique(np.searchsorted(shares, 1 - 10**-wanted - 1e-12))
    return [(float(ordered[i]), float(shares[i])) for i in np.minimum(kept, count - 1)]


@dataclass(frozen=True)
class Panel:
    """One drawing: the same work in a closed loop and at fixed rates."""

    title: str
    drawing: svg.Element


def panels(results: Sequence[ScenarioResult]) -> list[Panel]:
    """One for each scenario, those that differ in their rate alone together."""
    grouped: dict[Scenario, list[ScenarioResult]] = {}
    for result in results:
        grouped.setdefault(replace(result.scenario, rate_per_s=None), []).append(result)
    made: list[Panel] = []
    for base, members in grouped.items():
        members.sort(key=lambda result: result.scenario.rate_per_s or 0)
        for start in range(0, len(members), _LINES):
            chunk = members[start : start + _LINES]
            made.append(Panel(base.name, _panel(chunk, len(made))))
    return made


def _panel(results: Sequence[ScenarioResult], number_on_page: int) -> svg.Element:
    times = [[t for round_ms in result.rounds_ms for t in round_ms] for result in results]
    low, high = min(map(min, times)), max(map(max, times))
    tail = max(max(t) / float(np.median(t)) for t in times)
    log = (tail > LONG_TAIL or high > 10 * low) and high < _LOG_RANGE * low
    legend = 20 * len(results)
    frame = svg.Frame(PANEL, 204 + legend, left=56, right=18, top=14 + legend, bottom=46)
    x = Scale(*padded((low, high), log=log), frame.left, frame.x_end, log)
    most = max(len(t) for t in times)
    y = Scale(0, max(1.0, nines(1 - 0.5 / most)) * 1.04, frame.y_end, frame.top)
    shares = [(nines(share), label) for share, label in _SHARES if nines(share) <= y.high]
    lines = [_line(t, x, y, style) for style, t in enumerate(times)]
    description = "; ".join(
        f"{_way(r)}: {counted(r.latency.count, 'call')}, median {ms(r.latency.p50_ms.value)}"
        for r in results
    )
    return svg.drawing(
        frame,
        f"latency-{number_on_page}",
        f"Share of calls up to a latency: {replace(results[0].scenario, rate_per_s=None).name}",
        f"{description}; slowest {ms(high)}.",
        *axes.rungs(y, frame, shares),
        axes.horizontal(x, frame, "ms per call" + (", logarithmic" if log else "")),
        *lines,
        *(_legend(result, style) for style, result in enumerate(results)),
    )


def _line(times_ms: Sequence[float], x: Scale, y: Scale, style: int) -> svg.Element:
    points: list[svg.Point] = [(x(t), y(nines(share))) for t, share in cumulative(times_ms)]
    dots = [svg.circle(*p, 3, f"dot-{style}") for p in points] if len(points) <= _DOT_UP_TO else []
    return svg.element("g", svg.polyline(points, f"line line-{style}"), *dots)


def _way(result: ScenarioResult) -> str:
    rate = result.scenario.rate_per_s
    return "closed loop" if rate is None else f"{rate:g} calls/s"


def _legend(result: ScenarioResult, style: int) -> svg.Element:
    y = 12 + 20 * style
    name = f"{_way(result)}: median {ms(result.latency.p50_ms.value)}"
    return svg.element(
        "g",
        svg.line(0, y - 4, 28, y - 4, f"line line-{style}"),
        svg.text(36, y, name),
    )


def model_chart(checks: Sequence[ModelCheck]) -> svg.Chart:
    """A dot for each scenario; on the diagonal, the prediction is right."""
    return svg.Chart(_model_drawn(checks, svg.WIDE), _model_drawn(checks, svg.NARROW))


def _model_drawn(checks: Sequence[ModelCheck], width: int) -> svg.Element:
    frame = svg.Frame(width, _MODEL_HEIGHTS[width], top=58, right=24)
    times = [time for check in checks for time in (check.measured_ms, check.predicted_ms)]
    log = min(times) > 0 and max(times) / min(times) >= _LOG_FROM
    low, high = padded(times, log=log)
    x = Scale(low, high, frame.left, frame.x_end, log)
    y = Scale(low, high, frame.y_end, frame.top, log)
    worst = max(checks, key=lambda check: abs(check.error))
    unit = "ms per image, logarithmic" if log else "ms per image"
    return svg.drawing(
        frame,
        f"model-{width}",
        "Predicted against measured milliseconds per image",
        f"{counted(len(checks), 'scenario')}; furthest off is {worst.scenario.name} "
        f"with {percent(abs(worst.error), 1)}.",
        axes.vertical(y, frame, "predicted " + unit),
        axes.horizontal(x, frame, "measured " + unit),
        svg.line(x(low), y(low), x(high), y(high), "unity"),
        *(_dot(check, x, y) for check in checks),
        *_model_legend(checks),
    )


def _dot(check: ModelCheck, x: Scale, y: Scale) -> svg.Element:
    hint = (
        f"{check.scenario.name}: measured {ms(check.measured_ms)}, "
        f"predicted {ms(check.predicted_ms)}"
    )
    style = "dot-open" if check.held_out else "dot-0"
    return svg.circle(x(check.measured_ms), y(check.predicted_ms), 5, style, hint)


def _model_legend(checks: Sequence[ModelCheck]) -> list[svg.Element]:
    entries = [
        (held_out, style, name)
        for held_out, style, name in (
            (False, "dot-0", "fitted on"),
            (True, "dot-open", "held out"),
        )
        if any(check.held_out == held_out for check in checks)
    ]
    drawn = []
    for index, (_, style, name) in enumerate(entries):
        x = 6 + 110 * index
        drawn += [svg.circle(x, 34, 5, style), svg.text(x + 12, 38, name)]
    return drawn
