"""Ways to choose the pictures that go on to the next exit, and what several choices give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.types import BoolArray


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
class Spread:
    """Mean and standard deviation of a quality over random choices or seeds."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(float(np.mean(values)), float(np.std(values)))
