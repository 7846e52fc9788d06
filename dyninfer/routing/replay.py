"""Which ways a policy would have sent images whose signals are known already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dyninfer.bundle.manifest import EASINESS
from dyninfer.routing.policy import DecisionPoint, Policy, count_ways
from dyninfer.types import Float32Array, Int64Array


def cascade_points(exits: int) -> tuple[DecisionPoint, ...]:
    """Where a cascade of so many exits decides, with a router at each but the last."""
    return tuple(
        DecisionPoint(index, EASINESS, (frozenset({index}), frozenset(range(index + 1, exits))))
        for index in range(exits - 1)
    )


def replay(
    points: Sequence[DecisionPoint], signals: Sequence[Float32Array], policy: Policy, images: int
) -> Int64Array:
    """(N,) way that each image takes.

    Args:
        points: where the route decides, in order.
        signals: of all images at each of them.
        policy: one that may be asked without learning from it.
        images: how many there are, N.
    """
    crowds = {frozenset(range(count_ways(points))): np.arange(images)}  # by what is still open
    for point, signal in zip(points, signals, strict=True):
        rows = crowds.pop(frozenset[int]().union(*point.ways))
        outcomes = policy.decide(signal[rows], point.of(rows))
        for outcome, reached in enumerate(point.ways):
            crowds[reached] = rows[outcomes == outcome]
    ways = np.empty(images, np.int64)
    for (way,), rows in crowds.items():
        ways[rows] = way
    return ways
