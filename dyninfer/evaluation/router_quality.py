"""A router beside chance, a hand rule and an oracle, at 25 % and 50 % of the pictures hard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.results.scores import Scores
from dyninfer.types import BoolArray, Float64Array

SHARES = (0.25, 0.5)
RANDOM_DRAWS = 400
FITTED = "fitted router"
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


@dataclass(frozen=True)
class QualityRow:
    """What one way of choosing the share of hard pictures gives, over seeds or draws."""

    name: str
    share: float
    ap50: MeanStd
    ap: MeanStd


@dataclass(frozen=True)
class RouterComparison:
    """All ways at all shares.

    Attributes:
        rows: by share, then by way.
        gain: AP50 of the fitted router above random choice, mean over shares and seeds.
        standard_error: of ``gain``: of the mean over seeds, and of that over random draws.
    """

    rows: tuple[QualityRow, ...]
    gain: float
    standard_error: float

    @property
    def within_chance(self) -> bool:
        """Whether one random choice in six or so is as good: more pictures would tell.

        The standard error says how well the gain on these pictures is known, not how much it
        varies from one set of pictures to another.
        """
        spreads = [row.ap50.std for row in self.rows if row.name == RANDOM]
        return self.gain < float(np.mean(spreads))

    @property
    def beats_random(self) -> bool:
        """Whether the fitted router is above random choice by more than the standard error."""
        return self.gain > 0 and self.gain > self.standard_error

    def row(self, name: str, share: float) -> QualityRow:
        """One line of the table."""
        return next(row for row in self.rows if (row.name, row.share) == (name, share))

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "gain": self.gain,
            "standard_error": self.standard_error,
            "beats_random": self.beats_random,
            "within_chance": self.within_chance,
        }


def compare(
    scores: ScoresOf,
    fitted: Sequence[npt.ArrayLike],
    others: Mapping[str, npt.ArrayLike],
    draws: int = RANDOM_DRAWS,
) -> RouterComparison:
    """Compare ways of choosing the pictures that go on.

    Args:
        scores: of a choice; there must be something to find.
        fitted: easiness (N,) of every picture by routers that have not seen it, one for each seed.
        others: way -> easiness (N,), or anything that is lower for what goes on first.
        draws: random choices to average over.
    """
    count = len(np.asarray(fitted[0]))
    rows = []
    ap50: dict[str, list[Float64Array]] = {}
    for share in SHARES:
        ways = {FITTED: [lowest(values, share) for values in fitted]}
        ways[RANDOM] = random_choices(count, share, draws)
        ways |= {name: [lowest(values, share)] for name, values in others.items()}
        for name, masks in ways.items():
            found = [scores(mask) for mask in masks]
            primary = np.array([entry.primary for entry in found], np.float64)
            secondary = np.array([entry.secondary for entry in found], np.float64)
            rows.append(QualityRow(name, share, MeanStd.of(secondary), MeanStd.of(primary)))
            ap50.setdefault(name, []).append(secondary)
    chance = ap50[RANDOM]
    by_seed = np.mean(ap50[FITTED], axis=0) - np.mean(chance)
    # draws of the two shares are independent: half of each mean, so half the error of each
    variance = by_seed.var() / len(by_seed) + sum(c.var() for c in chance) / draws / 4
    return RouterComparison(tuple(rows), float(by_seed.mean()), float(np.sqrt(variance)))
