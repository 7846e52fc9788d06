"""A picture of a search: the score of backbones against what they cost, as a file of its own."""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.benchmarks.report import axes, svg
from dyninfer.benchmarks.report.axes import Scale, padded
from dyninfer.search.budgets import Candidate
from dyninfer.search.evolution import Search

_HEIGHT = 460
_STYLE = """
svg { background: #ffffff; font-family: system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
text { font-size: 13px; fill: #1b1e24; }
.tick, .axis-title { fill: #565c68; }
.halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
.grid { stroke: #e3e6eb; }
.axis { stroke: #565c68; }
.curve { fill: none; stroke: #0072b2; stroke-width: 2.25; stroke-linejoin: round; }
.curve-dot { fill: #0072b2; }
.kept { fill: #e69f00; opacity: 0.45; }
.marker { fill: #d55e00; stroke: #ffffff; stroke-width: 2; }
.threshold { stroke: #d55e00; stroke-width: 1.5; stroke-dasharray: 5 4; }
"""


@dataclass(frozen=True)
class _Unit:
    """What the horizontal axis counts in: ``size`` of it are 1."""

    name: str
    size: float
    budget: float


def pareto_picture(search: Search) -> str:
    """An SVG document: the front of a search, what it keeps beside, its start and its budget."""
    unit = _unit(search)
    frame = svg.Frame(svg.WIDE, _HEIGHT, left=64, right=28)

    def value(candidate: Candidate) -> float:
        return search.price(candidate) / unit.size

    prices = [value(each) for each in (*search.front, *search.population)]
    scores = [each.score for each in (*search.front, *search.population)]
    x = Scale(*padded([*prices, unit.budget]), frame.left, frame.x_end)
    y = Scale(*padded(scores), frame.y_end, frame.top)

    def place(candidate: Candidate) -> svg.Point:
        return x(value(candidate)), y(candidate.score)

    best, start = place(search.best), place(search.front[0])
    front = [place(each) for each in search.front]
    drawn = svg.drawing(
        frame,
        "pareto",
        f"Score against {unit.name}",
        f"From {search.front[0].score:.1f} at {value(search.front[0]):.4g} to "
        f"{search.best.score:.1f} at {value(search.best):.4g}, within {unit.budget:.4g}.",
        axes.vertical(y, frame, "entropy score"),
        axes.horizontal(x, frame, unit.name),
        svg.line(x(unit.budget), frame.top, x(unit.budget), frame.y_end, "threshold"),
        svg.text(x(unit.budget) - 8, frame.y_end - 10, "budget", anchor="end", class_="halo"),
        *(svg.circle(*place(each), 3, "kept", _hint(each)) for each in search.population),
        svg.polyline(front, "curve"),
        *(svg.circle(*place(each), 3, "curve-dot", _hint(each)) for each in search.front),
        svg.circle(*best, 6.5, "marker", _hint(search.best)),
        svg.text(best[0] - 8, best[1] - 12, "found", anchor="end", class_="halo"),
        svg.text(start[0] + 12, start[1] + 4, "cheapest", class_="halo"),
    )
    attributes = (("xmlns", "http://www.w3.org/2000/svg"), *drawn.attributes)
    style = svg.element("style", " ".join(_STYLE.split()))
    styled = svg.Element("svg", attributes, (style, *drawn.children))
    return styled.render() + "\n"


def _unit(search: Search) -> _Unit:
    """The one that :meth:`Search.price` counts in."""
    budgets = search.settings.budgets
    if budgets.latency_ms is not None:
        return _Unit("ms per image, by the device's table", 1, budgets.latency_ms)
    if budgets.flops is not None:
        size = 1e9 if budgets.flops >= 1e9 else 1e6
        height, width = search.settings.measure.image_size
        prefix = "G" if size == 1e9 else "M"
        return _Unit(f"{prefix} flops at {height}x{width}", size, budgets.flops / size)
    assert budgets.parameters is not None  # a search has a budget beside layers
    return _Unit("M parameters", 1e6, budgets.parameters / 1e6)


def _hint(candidate: Candidate) -> str:
    cost = candidate.cost
    return (
        f"score {candidate.score:.1f}: {candidate.structure}, {cost.parameters / 1e6:.1f} M "
        f"parameters, {cost.flops / 1e9:.3g} G flops, {cost.layers} layers"
    )
