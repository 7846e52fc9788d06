"""What a router should minimise, its fit, and asking about pictures that it was not fitted to.

A detector in a bundle is a black box: its training loss is not known. What counts is known,
average precision, and so the loss of an image at an exit is what its detections take from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dyninfer.errors import RouterError
from dyninfer.evaluation.routed_precision import PictureMatches
from dyninfer.exporters.router.model import LinearGain
from dyninfer.exporters.router.observe import Observations
from dyninfer.types import BoolArray, Float64Array


class DetectionPool:
    """All detections of all images at some exits, matched with the truth at IoU 0.5.

    Detections of other ``classes``, if these are given, count neither way, as in COCO's average
    precision where no object is of them.
    """

    def __init__(
        self,
        pictures: Sequence[PictureMatches],
        exits: tuple[int, ...],
        classes: BoolArray | None = None,
    ) -> None:
        self._count, self._ends = len(pictures), len(exits)
        entries = [
            (image, side, picture.exits[index])
            for image, picture in enumerate(pictures)
            for side, index in enumerate(exits)
        ]
        found = [matches for *_, matches in entries]
        sizes = [len(matches.class_ids) for matches in found]
        confidences = np.concatenate([matches.confidences for matches in found])
        counts = ~np.concatenate([matches.ignored[:, 0] for matches in found])
        if classes is not None:
            counts &= classes[np.concatenate([matches.class_ids for matches in found])]
        order = np.argsort(-confidences, kind="stable")
        order = order[counts[order]]
        self._images = np.repeat([image for image, *_ in entries], sizes)[order]
        self._sides = np.repeat([side for _, side, _ in entries], sizes)[order]
        self._true = np.concatenate([matches.true[:, 0] for matches in found])[order]
        self._confidences = confidences[order]
        self._objects = np.array([len(picture.object_classes) for picture in pictures])

    def losses(self, images: BoolArray) -> Float64Array:
        """(N, exits) loss of the images marked (N,) through each exit; 0 for the others.

        The objects of an image, less the influence of its detections on average precision. Of
        all marked images' detections by falling confidence, ``precision`` at rank r is the share
        of true ones up to r, and AP times the number of objects is the sum of ``precision`` over
        true detections. One more true detection adds its ``precision`` and lifts that of every
        true one below it by (1 - precision) / r; one more false detection lowers these by
        precision / r: the first-order change of AP (Everingham et al., "The PASCAL Visual Object
        Classes Challenge", IJCV 2010, section 4.2, defines it). So the loss counts objects as AP
        does, is bounded for every box, and needs no calibrated confidences. Equal confidences
        share the rank of the last of them. The losses of all images through all exits add up to
        (1 - AP) times the objects, counted once for each exit.
        """
        chosen = np.flatnonzero(images[self._images])
        true = self._true[chosen].astype(np.float64)
        falling = -self._confidences[chosen]
        rank = np.searchsorted(falling, falling, side="right")
        first = np.searchsorted(falling, falling, side="left")
        precision = true.cumsum()[rank - 1] / rank
        lost = _sum_from(true * precision / rank)[first]
        lifted = _sum_from(true * (1 - precision) / rank)[first]
        worth = np.where(true > 0, precision + lifted, -lost)
        found = np.zeros((self._count, self._ends))
        np.add.at(found, (self._images[chosen], self._sides[chosen]), worth)
        return np.asarray(np.where(images, self._objects, 0)[:, None] - found, np.float64)


def _sum_from(values: Float64Array) -> Float64Array:
    """Sums of every entry and all after it."""
    return np.asarray(values[::-1].cumsum()[::-1], np.float64)


WEIGHT_DECAY = 0.005  # as the published training of the router
MAX_FEATURES = 16
MAX_COMPONENTS = 64
ROUNDING = 1e-3  # of a feature's largest value
LEAST_SPREAD = 0.05  # of the root mean square over all features
_TAILS = 0.02
_STEPS, _RATE = 400, 0.05  # enough to converge


def fit_gain(features: Float64Array, losses: Float64Array) -> LinearGain | None:
    """Fit to features (N, F) and losses (N, 2) through either exit, by DynamicDet's router loss.

    Without a seed: all images at once, from weights of 0, with weight decay, by Adam (Kingma and
    Ba, ICLR 2015).

    Returns:
        An estimate of the gain by going on with median 0 and standard deviation 1 on these
        images, so that the estimates of different folds compare; None where features or gains
        do not vary.
    """
    gain = losses[:, 0] - losses[:, 1]
    low, high = np.quantile(gain, [_TAILS, 1 - _TAILS])
    gain = np.clip(gain, low, high)  # one image of thirty objects must not outweigh all others
    centre = features.mean(axis=0)
    basis = _basis(features - centre, np.abs(features).max(axis=0))
    if not basis.shape[1] or np.ptp(gain) < 1e-9:
        return None
    inputs = (features - centre) @ basis
    weights = _minimise(inputs, gain)
    estimate = inputs @ weights
    spread = float(estimate.std())
    if not np.isfinite(spread) or spread < 1e-9:
        return None
    weights = basis @ weights / spread
    return LinearGain(weights, -float(np.median(estimate)) / spread - float(centre @ weights))


RIDGE = 0.16
"""For losses at branches; from 0.05 to 16 nothing was better on real photographs."""


def fit_losses(features: Float64Array, losses: Float64Array) -> tuple[Float64Array, Float64Array]:
    """A linear estimate of losses (N, branches) from features (N, F), by ridge regression.

    What all branches lose of an image is left out: only differences choose.

    Returns:
        Weights (F + 1, branches), the last row what is added, and the centre (F,) of the features.

    Raises:
        RouterError: features or differences do not vary.
    """
    wanted = losses - losses.mean(axis=1, keepdims=True)
    low, high = np.quantile(wanted, [_TAILS, 1 - _TAILS], axis=0)
    wanted = np.clip(wanted, low, high)  # one image of thirty objects must not outweigh all others
    if np.ptp(wanted, axis=0).max() < 1e-9:
        raise RouterError(
            "there is nothing to learn: no picture loses more than another at any size; give more "
            "and other pictures"
        )
    centre = features.mean(axis=0)
    basis = _basis(features - centre, np.abs(features).max(axis=0))
    if not basis.shape[1]:
        raise RouterError(
            "there is nothing to learn from: what the chooser reads is the same for all pictures; "
            "give pictures that differ"
        )
    inputs, mean = (features - centre) @ basis, wanted.mean(axis=0)
    square = inputs.T @ inputs / len(inputs) + RIDGE * np.eye(basis.shape[1])
    slopes = np.linalg.solve(square, inputs.T @ (wanted - mean) / len(inputs))
    return np.vstack([basis @ slopes, mean]), centre


def _basis(centred: Float64Array, largest: Float64Array) -> Float64Array:
    """(F, P) what turns centred features into standardised ones, or into their components.

    Many features together weigh as much as 16, or the decay would mean nothing to them;
    directions in which they hardly vary are then held back most. Features that vary far less
    than the others, which are in the same unit, are not blown up, and left out where an engine's
    rounding could be all there is to them.
    """
    spread = centred.std(axis=0)
    varies = spread > ROUNDING * largest
    scale = np.sqrt(spread**2 + LEAST_SPREAD**2 * np.mean(spread**2))
    standard = np.diag(np.divide(1.0, scale, out=np.zeros_like(scale), where=varies))[:, varies]
    if standard.shape[1] <= MAX_FEATURES:
        return standard
    axes = np.linalg.svd(centred @ standard, full_matrices=False)[2][:MAX_COMPONENTS]
    return np.asarray(standard @ axes.T * np.sqrt(MAX_FEATURES / standard.shape[1]), np.float64)


def _minimise(inputs: Float64Array, gain: Float64Array) -> Float64Array:
    """Weights (P,) of the gain whose easiness e has the least expected loss.

    Of losses L1 and L2 at the exits that is e (L1 - m / 2) + (1 - e) (L2 + m / 2), with m the
    median of the gain L1 - L2: half of the images are better off at each (Lin et al., "DynamicDet",
    CVPR 2023, section 3.3). Gains are taken in units of their mean distance from m, so that the
    decay means the same for every detector.
    """
    median = float(np.median(gain))
    scale = float(np.abs(gain - median).mean()) or 1.0
    slope = gain - median  # the loss is linear in the easiness
    columns = np.c_[inputs, np.ones(len(inputs))]
    weights, mean, square = np.zeros((3, columns.shape[1]))
    for step in range(1, _STEPS + 1):
        easiness = 1 / (1 + np.exp(columns @ weights))
        gradient = -columns.T @ (easiness * (1 - easiness) * slope) / (scale * len(inputs))
        gradient[:-1] += WEIGHT_DECAY * weights[:-1]
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        weights = weights - _RATE * mean / (1 - 0.9**step) / corrected
    return np.asarray(weights[:-1], np.float64)


class ExitData:
    """What the router of one exit learns from: its features, and losses here and at the last."""

    def __init__(self, seen: Observations, exit_index: int, classes: int) -> None:
        """``classes`` is the number of the detector's classes."""
        occurring = np.zeros(classes, np.bool_)
        for picture in seen.matches:
            occurring[picture.object_classes] = True
        exits = (exit_index, len(seen.matches[0].exits) - 1)
        self._pool = DetectionPool(seen.matches, exits, occurring if seen.labelled else None)
        self._photos, self._original = seen.photos, seen.original
        self._features = seen.features[exit_index]

    def losses(self) -> Float64Array:
        """(V, 2) of all views, through this exit and the last."""
        return self._pool.losses(np.ones(len(self._photos), np.bool_))

    def fit(self, views: BoolArray | None = None) -> LinearGain:
        """Fit to the views marked (V,), or to all.

        Raises:
            RouterError: features or gains of these views do not vary.
        """
        views = np.ones(len(self._photos), np.bool_) if views is None else views
        losses = self._pool.losses(views)[views]
        gain = fit_gain(self._features[views], losses)
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
            "give pictures that differ, or other features (--features)"
        )

    def out_of_fold(self, folds: int, seed: int) -> Float64Array:
        """(photos,) gain of every picture, estimated without it and without its other views."""
        count = int(self._photos[-1]) + 1
        fold = np.random.default_rng(seed).permutation(count) % folds
        estimates = np.empty(count)
        for number in range(folds):
            held_out = fold[self._photos] == number
            asked = held_out & self._original
            estimates[self._photos[asked]] = self.fit(~held_out)(self._features[asked])
        return estimates
