"""How far two samples are from each other, and how far chance alone would bring them.

Pure functions on arrays, for easiness in [0, 1] without NaN.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from dyninfer.types import Float64Array

BINS = 10
GRID = 2.0**-13
"""Easiness is compared in steps of this: engines round differently by up to 1e-5, and a router
that always says the same must not seem to drift for that. Decimals, halves of halves and steps
of 1/255 lie well within a step, none on the border of two."""
_SMOOTHING = 0.5
_HALVINGS = 60  # of an interval of length 1: as exact as a float64


def on_grid(easiness: npt.ArrayLike) -> Float64Array:
    """The nearest steps of :data:`GRID`."""
    return np.asarray(np.round(np.asarray(easiness, np.float64) / GRID) * GRID, np.float64)


def bin_edges(reference: npt.ArrayLike) -> Float64Array:
    """(9,) inner edges of ten bins: the deciles of a reference, so that each holds a tenth of it.

    Where deciles coincide, because many images have the same easiness, ten bins of equal width
    over [0, 1] are taken instead, as where there is no reference; the outermost bins are open.
    """
    values, inner = np.asarray(reference, np.float64), np.linspace(0, 1, BINS + 1)[1:-1]
    if not len(values):
        return inner
    deciles = np.quantile(values, inner)
    return np.asarray(deciles if np.all(np.diff(deciles) > 0) else inner, np.float64)


def bin_counts(values: npt.ArrayLike, edges: Float64Array) -> Float64Array:
    """(len(edges) + 1,) how many values are in each bin; a value on an edge is in the upper one."""
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="right")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.float64)


def population_stability_index(counts: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Sum over bins of (p - q) ln(p / q), with p and q the shares of the two samples.

    The usual reading is: below 0.1 the same population, above 0.25 another (Siddiqi, "Credit Risk
    Scorecards", Wiley, 2006, chapter 8). So that an empty bin does not make it infinite, every
    count is raised by one half first, in both samples. Counts are (B,), in the same bins.
    """
    raised = [np.asarray(given, np.float64) + _SMOOTHING for given in (counts, reference)]
    p, q = (values / values.sum() for values in raised)
    return float(np.sum((p - q) * np.log(p / q)))


def stability_noise(bins: int, sample: int, reference: int, level: float) -> float:
    """Population stability index that two samples of one population exceed with chance ``level``.

    It is distributed as (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul
    and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
    Validation 14(4), 2020), so small samples have a large one without any drift. The quantile of
    chi-square is that of Wilson and Hilferty (PNAS 17(12), 1931), within 1 % at 9 degrees of
    freedom.
    """
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    cube_root = 1 - spread + NormalDist().inv_cdf(1 - level) * math.sqrt(spread)
    return float((1 / sample + 1 / reference) * freedom * cube_root**3)


def share_noise(share: float, sample: int, reference: int, level: float) -> float:
    """By how much the shares of two samples of one population differ with chance ``level``.

    Two-sided, by the normal approximation of the binomial distribution.
    """
    deviation = math.sqrt(share * (1 - share) * (1 / sample + 1 / reference))
    return NormalDist().inv_cdf(1 - level / 2) * deviation


def ks_statistic(sample: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Largest distance between the distribution functions of two samples, in [0, 1].

    The two-sample statistic of Kolmogorov and Smirnov (Smirnov, Annals of Mathematical Statistics
    19(2), 1948).
    """
    a, b = (np.sort(np.asarray(values, np.float64)) for values in (sample, reference))
    points = np.concatenate([a, b])
    steps = [np.searchsorted(v, points, side="right") / len(v) for v in (a, b)]
    return float(np.abs(steps[0] - steps[1]).max())


def ks_p_value(statistic: float, sample: int, reference: int) -> float:
    """Chance that two samples of one continuous population are at least so far apart.

    Kolmogorov's limiting distribution, 2 sum (-1)^(j-1) exp(-2 j^2 x^2), at
    x = (sqrt(e) + 0.12 + 0.11 / sqrt(e)) D with e = n m / (n + m), the correction of Stephens
    (Journal of the Royal Statistical Society B 32(1), 1970, section 2). Where values repeat, the
    true chance is smaller: the test errs towards no drift.
    """
    root = math.sqrt(sample * reference / (sample + reference))
    x = (root + 0.12 + 0.11 / root) * statistic
    if x < 0.2:  # the series converges slowly there, and 1 is right to 12 digits
        return 1.0
    j = np.arange(1, 101)
    total = 2 * np.sum((-1.0) ** (j - 1) * np.exp(-2 * (j * x) ** 2))
    return float(total)


def mean_bounds(mean: float, count: int, level: float) -> tuple[float, float]:
    """Bounds of an expectation from the mean of ``count`` values in [0, 1].

    Each bound is wrong with a chance of at most ``level``, at any count: the bounds are where
    ``count`` times the Kullback-Leibler divergence of two coins, from the mean to the bound,
    reaches ln(1 / level) (Hoeffding, Journal of the American Statistical Association 58, 1963,
    theorem 1).
    """
    if not count:
        return 0.0, 1.0
    allowed = math.log(1 / level) / count
    return _farthest(mean, 0.0, allowed), _farthest(mean, 1.0, allowed)


def _farthest(mean: float, end: float, allowed: float) -> float:
    """The point between ``mean`` and ``end`` up to which the divergence is allowed."""
    inside, outside = mean, end
    if _divergence(mean, end) <= allowed:
        return end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if _divergence(mean, middle) <= allowed:
            inside = middle
        else:
            outside = middle
    return inside


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of a coin of chance p from one of chance q."""
    total = 0.0
    for a, b in ((p, q), (1 - p, 1 - q)):
        if a > 0:
            if b <= 0:
                return math.inf
            total += a * math.log(a / b)
    return total
