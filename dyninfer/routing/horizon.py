"""The way on which each of many streams is best answered, over time and within one budget.

Pure functions; times in seconds, work in milliseconds. An answer by way w to a stream's frame
loses l_w at once, and a more every second that it stands for later frames. A stream that is
answered every T seconds on a way of c ms so loses l_w + a T / 2 on average, and takes c / T ms a
second. Of all periods that keep to a budget of B ms a second the best are in proportion to the root
of c / a (Lagrange), and what all streams lose is then the sum of l_w, and (sum of root of a c)^2 /
(2 B).

So an exit that is cheap but bad does not win by its price alone: it does where frames change so
quickly, or the budget is so small, that the good one would come too seldom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Outlook(NamedTuple):
    """What is expected of a stream's answers: ``lost`` (ways,), and ``change``, loss a second."""

    lost: Sequence[float]
    change: float


def best_ways(
    ms: Sequence[float], outlooks: Mapping[str, Outlook], budget: float
) -> dict[str, int]:
    """A way for each stream: no one way for all is better, nor another one for one stream.

    Args:
        ms: (ways,) of an answer, above 0.
        outlooks: by name.
        budget: milliseconds a second of all streams together, above 0.
    """
    uniform = (dict.fromkeys(outlooks, way) for way in range(len(ms)))
    ways = min(uniform, key=lambda each: expected_loss(ms, outlooks, each, budget))
    least = expected_loss(ms, outlooks, ways, budget)
    better = True
    while better:
        better = False
        for name in outlooks:
            for way in range(len(ms)):
                tried = ways | {name: way}
                loss = expected_loss(ms, outlooks, tried, budget)
                if loss < least - 1e-9:
                    ways, least, better = tried, loss, True
    return ways


def expected_loss(
    ms: Sequence[float], outlooks: Mapping[str, Outlook], ways: Mapping[str, int], budget: float
) -> float:
    """What all streams lose together, on these ways and as often as the budget allows."""
    at_once = sum(outlook.lost[ways[name]] for name, outlook in outlooks.items())
    roots = sum(math.sqrt(outlook.change * ms[ways[name]]) for name, outlook in outlooks.items())
    return at_once + roots * roots / (2 * budget)
