"""How long a student will take, before it is exported and timed."""

from __future__ import annotations

import numpy as np

from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.cost import cost_of
from dyninfer.types import Float64Array


class Estimate:
    """Shares of the base's time, by what was timed so far.

    A share is what every call takes, and what each multiply-accumulate and each layer of the
    backbone adds: of a small detector, layers and calls take more than arithmetic does. The three
    are fitted by least squares, and none is below 0.

    Args:
        base: is what shares are of.
        image_size: height and width.
    """

    def __init__(self, base: ZenDetStudent, image_size: tuple[int, int]) -> None:
        self._image_size = image_size
        self._unit = np.ones(3)
        self._unit = self._costs(base)
        self._rows: list[Float64Array] = []
        self._shares: list[float] = []
        self._each = np.zeros(3)

    def add(self, student: ZenDetStudent, share: float) -> None:
        """Learn from one that was timed."""
        self._rows.append(self._costs(student))
        self._shares.append(share)
        rows, shares = np.stack(self._rows), np.array(self._shares)
        kept = np.arange(3)
        while True:
            found = np.linalg.lstsq(rows[:, kept], shares, rcond=None)[0]
            if (found >= 0).all():
                break
            kept = np.delete(kept, found.argmin())
        self._each = np.zeros(3)
        self._each[kept] = found

    def __call__(self, student: ZenDetStudent) -> float:
        """The share that a student takes."""
        return float(self._costs(student) @ self._each)

    def _costs(self, student: ZenDetStudent) -> Float64Array:
        cost = cost_of(student.structure, self._image_size)
        return np.array([1, cost.macs, cost.layers]) / self._unit
