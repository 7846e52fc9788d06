"""Fitting on some pictures and asking about the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dyninfer.errors import RouterError
from dyninfer.exporters.router.losses import DetectionPool
from dyninfer.exporters.router.model import LinearGain
from dyninfer.exporters.router.observe import Observations
from dyninfer.exporters.router.solve import fit_gain
from dyninfer.types import BoolArray, Float64Array, Int64Array


@dataclass(frozen=True)
class ExitData:
    """What the router of one exit learns from: its features, and losses here and at the last."""

    photos: Int64Array
    original: BoolArray
    features: Float64Array
    pool: DetectionPool

    @classmethod
    def of(cls, seen: Observations, exit_index: int, classes: int) -> ExitData:
        """The columns of one exit; ``classes`` is the number of the detector's classes."""
        occurring = np.zeros(classes, np.bool_)
        for picture in seen.matches:
            occurring[picture.object_classes] = True
        exits = (exit_index, len(seen.matches[0].exits) - 1)
        pool = DetectionPool(seen.matches, exits, occurring if seen.labelled else None)
        return cls(seen.photos, seen.original, seen.features[exit_index], pool)

    def losses(self) -> Float64Array:
        """(V, 2) of all views, through this exit and the last."""
        return self.pool.losses(np.ones(len(self.photos), np.bool_))

    def fit(self, views: BoolArray) -> LinearGain:
        """Fit to the views marked (V,).

        Raises:
            RouterError: features or gains of these views do not vary.
        """
        losses = self.pool.losses(views)[views]
        gain = fit_gain(self.features[views], losses)
        if gain is not None:
            return gain
        if np.ptp(losses[:, 0] - losses[:, 1]) < 1e-9:
            raise RouterError(
                "there is nothing to learn: no picture gains more than another by going on, for "
                "both exits find the same; check that the last exit is the better detector, or "
                "give more and harder pictures"
            )
        raise RouterError(
            "there is nothing to learn from: what the router reads is the same for all pictures; "
            "give pictures that differ, or other --features"
        )

    def fit_all(self) -> LinearGain:
        """Fit to all views."""
        return self.fit(np.ones(len(self.photos), np.bool_))

    def out_of_fold(self, folds: int, seed: int) -> Float64Array:
        """(photos,) gain of every picture, estimated without it and without its other views."""
        count = int(self.photos[-1]) + 1
        fold = np.random.default_rng(seed).permutation(count) % folds
        estimates = np.empty(count)
        for number in range(folds):
            held_out = fold[self.photos] == number
            asked = held_out & self.original
            estimates[self.photos[asked]] = self.fit(~held_out)(self.features[asked])
        return estimates
