"""Fitting a linear router to few images, where overfitting is the danger."""

from __future__ import annotations

import numpy as np

from dyninfer.exporters.router.losses import routed_loss
from dyninfer.exporters.router.model import LinearGain
from dyninfer.types import Float64Array

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
    """Weights (P,) of the gain whose easiness has the least routed loss.

    Gains are taken in units of their mean distance from the median, so that the decay means the
    same for every detector.
    """
    median = float(np.median(gain))
    scale = float(np.abs(gain - median).mean()) or 1.0
    easy, hard = np.ones_like(gain), np.zeros_like(gain)
    # the loss is linear in the easiness, so this difference is its slope
    slope = routed_loss(easy, gain, hard, median) - routed_loss(hard, gain, hard, median)
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
