"""A chooser beside fixed branches, random mixtures and an oracle, at what each branch costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dyninfer.bundle.manifest import CHOICE_SCORES
from dyninfer.evaluation.router_quality import Gain, MeanStd, Metric, gain_over
from dyninfer.results.scores import Scores
from dyninfer.routing.cost_bias import CostBias, bias_steps
from dyninfer.routing.policy import DecisionPoint
from dyninfer.types import Float32Array, Float64Array, Int64Array

DRAWS = 5
"""Random mixtures for each seed."""

ScoresOf = Callable[[Int64Array], Scores]
"""Ways (N,) of the pictures -> AP and AP50."""


@dataclass(frozen=True)
class Quality:
    """AP and AP50 over seeds or draws."""

    ap: MeanStd
    ap50: MeanStd

    @classmethod
    def of(cls, found: Sequence[Scores]) -> Quality:
        """Of at least one entry."""
        return cls(
            MeanStd.of([entry.primary or 0.0 for entry in found]),
            MeanStd.of([entry.secondary or 0.0 for entry in found]),
        )

    def by(self, metric: Metric) -> MeanStd:
        """The one that is judged by."""
        return self.ap if metric is Metric.AP else self.ap50


@dataclass(frozen=True)
class ChoiceRow:
    """What comes of spending, on average, at most what one branch costs without a chooser.

    Attributes:
        branch: whose cost it is.
        fixed: all pictures at this branch.
        macs: what the chooser and its branches spend, mean over seeds.
        shares: of the pictures at each branch, mean over seeds.
        fitted: the chooser on pictures that it was not fitted on.
        random: the same shares, at random.
        oracle: the choice by the pictures' own losses, which is good but not the best possible.
    """

    branch: int
    fixed: Scores
    macs: float
    shares: tuple[float, ...]
    fitted: Quality
    random: Quality
    oracle: Scores


@dataclass(frozen=True)
class ChoiceComparison:
    """The rows of all branches whose cost pays for a chooser, by rising cost.

    ``gain`` is above random mixtures, mean over the rows; ``fixed`` each branch for all pictures.
    """

    metric: Metric
    chooser_macs: int
    branch_macs: tuple[int, ...]
    fixed: tuple[Scores, ...]
    rows: tuple[ChoiceRow, ...]
    gain: Gain

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return asdict(self) | {"metric": self.metric.value}


def compare_choices(
    scores_of: ScoresOf,
    fitted: Sequence[Float32Array],
    oracle: Float64Array,
    *,
    branch_macs: Sequence[int],
    chooser_macs: int,
    metric: Metric,
) -> ChoiceComparison:
    """Compare at the cost of every branch but the cheapest.

    Args:
        scores_of: a choice; there must be something to find.
        fitted: scores (N, branches) by choosers that have not seen a picture, one for each seed.
        oracle: scores (N, branches) by what is known of the pictures.
        branch_macs: of each branch alone.
        chooser_macs: of the chooser.
        metric: what decides.
    """
    count, branches = oracle.shape
    macs = tuple(each + chooser_macs for each in branch_macs)
    fixed = [scores_of(np.full(count, branch)) for branch in range(branches)]
    rows: list[ChoiceRow] = []
    judged: list[tuple[Float64Array, Float64Array]] = []
    for branch in sorted(range(branches), key=branch_macs.__getitem__):
        limit = branch_macs[branch]
        if limit < min(macs):
            continue
        choices = [choose_within(scores, macs, limit) for scores in fitted]
        found = [scores_of(ways) for ways in choices]
        mixed = [
            scores_of(np.random.default_rng(number).permutation(ways))
            for number, ways in enumerate(ways for ways in choices for _ in range(DRAWS))
        ]
        shares = np.mean([np.bincount(w, minlength=branches) / count for w in choices], axis=0)
        rows.append(
            ChoiceRow(
                branch=branch,
                fixed=fixed[branch],
                macs=float(shares @ np.array(macs)),
                shares=tuple(shares.tolist()),
                fitted=Quality.of(found),
                random=Quality.of(mixed),
                oracle=scores_of(choose_within(oracle, macs, limit)),
            )
        )
        judged.append((_values(found, metric), _values(mixed, metric)))
    gain = gain_over([own for own, _ in judged], [chance for _, chance in judged])
    return ChoiceComparison(
        metric, chooser_macs, tuple(branch_macs), tuple(fixed), tuple(rows), gain
    )


def choose_within(
    scores: Float32Array | Float64Array, macs: tuple[int, ...], limit: float
) -> Int64Array:
    """(N,) the branches with the least cost bias, negative ones included, that keeps the mean.

    ``macs`` (branches,) are of an image at each, the chooser's included; the cheapest must fit.
    """
    steps = bias_steps(scores, macs)
    fits = np.flatnonzero(steps.shares @ np.array(macs, np.float64) <= limit)
    ways = tuple(frozenset({branch}) for branch in range(len(macs)))
    point = DecisionPoint(0, CHOICE_SCORES, ways, np.arange(len(scores)), macs)
    return CostBias(steps.bias(int(fits[-1]))).decide(np.asarray(scores, np.float32), point)


def _values(found: Sequence[Scores], metric: Metric) -> Float64Array:
    primary = metric is Metric.AP
    return np.array([(s.primary if primary else s.secondary) or 0.0 for s in found])
