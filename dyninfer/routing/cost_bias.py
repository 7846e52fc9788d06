"""A chooser's decisions moved by what branches cost: one knob from the dearest to the cheapest.

Wang et al., "Dynamic Resolution Network" (NeurIPS 2021), train a chooser with the penalty
``max(0, (E[F] - target) / (C_max - C_min))`` on the multiply-accumulates F that it spends. Here the
same normalised cost, weighed by a bias, is subtracted when it decides, so that a trained chooser
serves any target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import CHOICE_SCORES
from dyninfer.errors import PolicyError
from dyninfer.routing.policy import Chosen, DecisionPoint, check_signals
from dyninfer.types import Float32Array, Float64Array, Int64Array, as_float, shown

_DIGITS = 17  # of a float64, which these tell apart
_LARGEST = float(np.finfo(np.float32).max)


@lru_cache(maxsize=64)
def relative_costs(macs: tuple[int, ...]) -> Float64Array:
    """(branches,) (C_j - C_min) / (C_max - C_min); all 0 where branches cost the same."""
    costs = np.array(macs, np.float64)
    found: Float64Array = (costs - costs.min()) / (np.ptp(costs) or 1.0)
    found.flags.writeable = False  # every caller gets the same array
    return found


@dataclass(frozen=True)
class CostBias:
    """Every image takes the branch of the largest score less ``bias`` times its relative cost.

    The scores count as log-probabilities: of branch j it is
    ``log_softmax(scores)[j] - bias * (C_j - C_min) / (C_max - C_min)`` that is compared, with C the
    multiply-accumulates of an image there. (An image's log-softmax differs from its scores by the
    same number for all branches, so it need not be computed.) A bias of 0 is :class:`Chosen`; a
    larger one never raises the cost of any image, a negative one never lowers it.

    Of equal values the cheapest branch is taken; scores with a NaN take the dearest, whatever the
    bias.

    Raises:
        PolicyError: ``bias`` is no finite number.
    """

    bias: float

    def __post_init__(self) -> None:
        value = as_float(self.bias)
        if not math.isfinite(value):
            raise PolicyError(
                f"a cost bias is {shown(self.bias)}, expected a finite number, such as 0.5: 0 "
                "leaves the choice to the chooser, more is cheaper"
            )
        object.__setattr__(self, "bias", value)

    def __str__(self) -> str:
        return f"cost bias {self.bias:.6g}"

    def decide(self, scores: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`."""
        return Chosen().decide(scores - self.bias * relative_costs(point.macs), point)

    def check(self, points: Sequence[DecisionPoint], _images: int | None) -> None:
        """Refuse a route without a chooser."""
        check_signals(points, (CHOICE_SCORES,), self)


@dataclass(frozen=True)
class BiasSteps:
    """Everything that a cost bias can do to some images, from the cheapest choice to the dearest.

    Between two ``edges`` the bias makes no difference: step k holds for biases from ``edges[k+1]``
    to below ``edges[k]``. ``shares`` (steps, branches) of the images take each branch there.
    """

    edges: Float64Array
    shares: Float64Array

    @property
    def chosen(self) -> int:
        """The step of bias 0: the chooser's own choice."""
        return int(np.flatnonzero(self.edges[1:] <= 0)[0])

    def bias(self, step: int) -> float:
        """A bias of this step: 0 where that is one, else one with few digits."""
        high, low = self.edges[step], self.edges[step + 1]
        if low <= 0 < high:
            return 0.0
        if math.isinf(high):
            return float(f"{low + max(0.1, 0.1 * abs(low)):.2g}")
        if math.isinf(low):
            return float(f"{high - max(0.1, 0.1 * abs(high)):.2g}")
        middle = (low + high) / 2
        rounded = (float(f"{middle:.{digits}g}") for digits in range(1, _DIGITS + 1))
        return next((value for value in rounded if low < value < high), float(low))


def bias_steps(scores: npt.ArrayLike, macs: Sequence[int]) -> BiasSteps:
    """The steps of a cost bias on images with these scores (N, branches); NaN as in a policy.

    As the bias grows, an image moves from branch to cheaper branch along the upper edge of the
    lines ``score_j - bias * cost_j``.
    """
    values, costs = np.asarray(scores, np.float64), relative_costs(tuple(macs))
    values = np.clip(values, -_LARGEST, _LARGEST)  # infinity has no differences
    order = np.argsort(costs, kind="stable")
    ranked, costs = values[:, order], costs[order]  # the cheapest branch first
    sound = np.flatnonzero(~np.isnan(ranked).any(axis=1))
    here = np.full(len(values), len(costs) - 1)
    dearest = np.flatnonzero(costs == costs[-1])
    here[sound] = dearest[ranked[sound][:, dearest].argmax(axis=1)]
    shares = [np.bincount(here, minlength=len(costs))]
    moves: list[tuple[Float64Array, Int64Array, Int64Array]] = []
    rows = sound
    while len(rows):
        saved = costs[here[rows], None] - costs
        lost = ranked[rows, here[rows]][:, None] - ranked[rows]
        at = np.full(saved.shape, np.inf)
        np.divide(lost, saved, out=at, where=saved > 0)
        target = at.argmin(axis=1)
        first = at[np.arange(len(rows)), target]
        moved = np.isfinite(first)
        rows, target = rows[moved], target[moved]
        moves.append((first[moved], here[rows], target))
        here[rows] = target
    return _steps(shares[0], moves, order)


def _steps(
    start: Int64Array,
    moves: Sequence[tuple[Float64Array, Int64Array, Int64Array]],
    order: Int64Array,
) -> BiasSteps:
    """From images at each branch, the cheapest first, before any move, and the moves."""
    nobody = np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    biases, left, reached = (np.concatenate(parts) for parts in zip(nobody, *moves, strict=True))
    edges, step = np.unique(biases, return_inverse=True)
    changes = np.zeros((len(edges) + 1, len(order)), np.int64)
    changes[0] = start
    np.add.at(changes, (step + 1, left), -1)
    np.add.at(changes, (step + 1, reached), 1)
    counts = np.empty_like(changes)
    counts[:, order] = changes.cumsum(axis=0)
    shares = counts[::-1] / start.sum()
    return BiasSteps(np.concatenate([[-np.inf], edges, [np.inf]])[::-1], shares)
