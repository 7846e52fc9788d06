"""What the latency model predicts against what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.latency.record import ModelCheck
from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.figures import ms, percent
from dyninfer.benchmarks.report.scales import Scale, padded

_HEIGHTS = {svg.WIDE: 360, svg.NARROW: 330}
_LOG_FROM = 8


def model_chart(checks: Sequence[ModelCheck]) -> svg.Chart:
    """A dot for each scenario; on the diagonal, the prediction is right."""
    return svg.Chart(_drawn(checks, svg.WIDE), _drawn(checks, svg.NARROW))


def _drawn(checks: Sequence[ModelCheck], width: int) -> svg.Element:
    frame = svg.Frame(width, _HEIGHTS[width], top=58, right=24)
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
        f"{len(checks)} scenarios; furthest off is {worst.scenario.name} "
        f"with {percent(abs(worst.error), 1)}.",
        axes.vertical(y, frame, "predicted " + unit),
        axes.horizontal(x, frame, "measured " + unit),
        svg.line(x(low), y(low), x(high), y(high), "unity"),
        *(_dot(check, x, y) for check in checks),
        *_legend(checks),
    )


def _dot(check: ModelCheck, x: Scale, y: Scale) -> svg.Element:
    hint = (
        f"{check.scenario.name}: measured {ms(check.measured_ms)}, "
        f"predicted {ms(check.predicted_ms)}"
    )
    style = "dot-open" if check.held_out else "dot-0"
    return svg.circle(x(check.measured_ms), y(check.predicted_ms), 5, style, hint)


def _legend(checks: Sequence[ModelCheck]) -> list[svg.Element]:
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
