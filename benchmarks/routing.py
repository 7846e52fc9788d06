"""Who goes on to the next exit, and what that is worth: the router beside chance and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.coco import AveragePrecision, Truth, average_precision
from dyninfer.types import BoolArray, Detections

Quality = Callable[[BoolArray], float]
"""Mask (N,) of the pictures sent on -> a quality in [0, 1], such as average precision."""


@dataclass(frozen=True)
class TwoExits:
    """The same pictures at an exit and at the last, with what is in them.

    ``classes`` is the number of the detector's classes.
    """

    first: Sequence[Detections]
    last: Sequence[Detections]
    truths: Sequence[Truth]
    classes: int

    def precision(self, hard: BoolArray) -> AveragePrecision:
        """Average precision when the pictures marked ``hard`` (N,) leave at the last exit."""
        pairs = zip(self.first, self.last, hard, strict=True)
        found = [last if is_hard else first for first, last, is_hard in pairs]
        return average_precision(self.truths, found, self.classes)


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


def random_quality(quality: Quality, count: int, share: float, seeds: int) -> Spread:
    """What choosing the pictures at random gives, over ``seeds`` draws."""
    return Spread.of([quality(mask) for mask in random_choices(count, share, seeds)])
