"""A router beside chance, a hand rule and an oracle, at 25 % and 50 % of the pictures hard.

The hand rule, maximum confidence, is a contender: where it is better, it is the router to have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.results.scores import Scores
from dyninfer.types import BoolArray, Float64Array

SHARES = (0.25, 0.5)
RANDOM_DRAWS = 400
CLEARLY = 2
"""Standard deviations."""
FITTED = "fitted router"
MAXIMUM_CONFIDENCE = "maximum confidence"
EXISTING = "existing router"
RANDOM = "random"

ScoresOf = Callable[[BoolArray], Scores]
"""Mask (N,) of the pictures sent on -> AP and AP50."""


def lowest(values: npt.ArrayLike, share: float) -> BoolArray:
    """Marks the ``share`` of entries with the lowest values; of equal ones, the first."""
    array = np.asarray(values)
    marked = np.zeros(len(array), np.bool_)
    marked[np.argsort(array, kind="stable")[: round(share * len(array))]] = True
    return marked


def random_choices(count: int, share: float, seeds: int) -> list[BoolArray]:
    """``seeds`` random masks (N,) with the same number marked as :func:`lowest` marks."""
    return [lowest(np.random.default_rng(seed).random(count), share) for seed in range(seeds)]


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation of a quality over random choices or seeds."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> MeanStd:
        """Of at least one value."""
        return cls(float(np.mean(np.asarray(values))), float(np.std(np.asarray(values))))


class Metric(str, Enum):
    """The precision that routers are judged by."""

    AP = "ap"
    AP50 = "ap50"

    @property
    def label(self) -> str:
        """As tables name it."""
        return self.value.upper()


@dataclass(frozen=True)
class QualityRow:
    """What one way of choosing the share of hard pictures gives, over seeds or draws."""

    name: str
    share: float
    ap50: MeanStd
    ap: MeanStd

    def of(self, metric: Metric) -> MeanStd:
        """The one that is judged by."""
        return self.ap if metric is Metric.AP else self.ap50


@dataclass(frozen=True)
class Gain:
    """A metric above that of random choice, mean over shares and seeds.

    ``standard_error`` is that of the mean over seeds and of that over random draws. It says how
    well the gain on these pictures is known, not how much it varies between sets of pictures.
    """

    mean: float
    standard_error: float

    @property
    def is_one(self) -> bool:
        """Whether it is above 0 by more than its error."""
        return self.mean > self.standard_error


@dataclass(frozen=True)
class RouterComparison:
    """All ways at all shares.

    Attributes:
        metric: what decides.
        rows: by share, then by way.
        ends: scores with no picture and with every picture sent on.
        gains: of the contenders, by name: the fitted router and, where it could be a router,
            maximum confidence.
    """

    metric: Metric
    rows: tuple[QualityRow, ...]
    ends: tuple[Scores, Scores]
    gains: Mapping[str, Gain]

    @property
    def winner(self) -> str:
        """The best contender; the fitted router unless the hand rule is clearly better.

        No seed varies that rule, so what random choices differ by stands for its error.
        """
        fitted, rule = self.gains[FITTED], self.gains.get(MAXIMUM_CONFIDENCE)
        if rule is None or rule.mean <= fitted.mean + fitted.standard_error:
            return FITTED
        return MAXIMUM_CONFIDENCE if rule.mean > CLEARLY * self._spread_of_chance else FITTED

    @property
    def _spread_of_chance(self) -> float:
        """Standard deviation of random choices, mean over the shares."""
        spreads = [row.of(self.metric).std for row in self.rows if row.name == RANDOM]
        return float(np.mean(spreads))

    @property
    def gain(self) -> Gain:
        """That of the winner."""
        return self.gains[self.winner]

    @property
    def within_chance(self) -> bool:
        """Whether one random choice in six or so is as good: more pictures would tell."""
        return self.gain.mean < self._spread_of_chance

    @property
    def beats_random(self) -> bool:
        """Whether the winner is above random choice by more than the standard error."""
        return self.gain.is_one

    def row(self, name: str, share: float) -> QualityRow:
        """One line of the table."""
        return next(row for row in self.rows if (row.name, row.share) == (name, share))

    def means(self, metric: Metric) -> dict[str, float]:
        """Way -> mean over the shares."""
        names = dict.fromkeys(row.name for row in self.rows)
        found = {n: [row.of(metric).mean for row in self.rows if row.name == n] for n in names}
        return {name: float(np.mean(values)) for name, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "metric": self.metric.value,
            "rows": [asdict(row) for row in self.rows],
            "ends": [{"ap": end.primary, "ap50": end.secondary} for end in self.ends],
            "gains": {name: asdict(gain) for name, gain in self.gains.items()},
            "winner": self.winner,
            "beats_random": self.beats_random,
            "within_chance": self.within_chance,
        }


def compare(
    scores: ScoresOf,
    fitted: Sequence[npt.ArrayLike],
    others: Mapping[str, npt.ArrayLike],
    metric: Metric = Metric.AP,
    *,
    by_hand: bool = True,
    draws: int = RANDOM_DRAWS,
) -> RouterComparison:
    """Compare ways of choosing the pictures that go on.

    Args:
        scores: of a choice; there must be something to find.
        fitted: easiness (N,) of every picture by routers that have not seen it, one for each seed.
        others: way -> easiness (N,), or anything that is lower for what goes on first.
        metric: what decides.
        by_hand: whether maximum confidence, where it is among the others, could be the router.
        draws: random choices to average over.
    """
    count = len(np.asarray(fitted[0]))
    rows = []
    judged: dict[str, list[Float64Array]] = {}
    for share in SHARES:
        ways = {FITTED: [lowest(values, share) for values in fitted]}
        ways[RANDOM] = random_choices(count, share, draws)
        ways |= {name: [lowest(values, share)] for name, values in others.items()}
        for name, masks in ways.items():
            found = [scores(mask) for mask in masks]
            primary = np.array([entry.primary for entry in found], np.float64)
            secondary = np.array([entry.secondary for entry in found], np.float64)
            rows.append(QualityRow(name, share, MeanStd.of(secondary), MeanStd.of(primary)))
            judged.setdefault(name, []).append(primary if metric is Metric.AP else secondary)
    ends = scores(np.zeros(count, np.bool_)), scores(np.ones(count, np.bool_))
    contenders = [FITTED] + [MAXIMUM_CONFIDENCE] * (by_hand and MAXIMUM_CONFIDENCE in judged)
    gains = {name: gain_over(judged[name], judged[RANDOM]) for name in contenders}
    return RouterComparison(metric, tuple(rows), ends, gains)


def gain_over(found: Sequence[Float64Array], chance: Sequence[Float64Array]) -> Gain:
    """Of one way over chance; both hold (seeds,) or (draws,) for each share."""
    by_seed = np.mean(found, axis=0) - np.mean(chance)
    # draws of the two shares are independent: half of each mean, so half the error of each
    of_chance = sum(c.var() / len(c) for c in chance) / len(chance) ** 2
    variance = by_seed.var() / len(by_seed) + of_chance
    return Gain(float(by_seed.mean()), float(np.sqrt(variance)))
