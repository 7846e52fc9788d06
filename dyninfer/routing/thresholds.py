"""What a threshold does to images whose easiness is known: who continues, how many, how long.

Pure functions on arrays. ``easiness`` is (routers, N) throughout: one row for every exit but the
last, one column for every image, as :class:`dyninfer.Calibration` holds it. A NaN is an image
that its router sends on whatever the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import EASINESS
from dyninfer.routing.policy import DecisionPoint, Policy, Threshold, count_ways
from dyninfer.types import Float32Array, Float64Array, Int64Array

SEND_NONE = 0.0
"""No easiness is below it: every image leaves at the first exit (NaN excepted)."""
SEND_ALL = 1.5
"""Every easiness is below it; 1 would not do, since a half-precision sigmoid can be exactly 1."""


def cascade_points(exits: int) -> tuple[DecisionPoint, ...]:
    """Where a cascade with this number of exits decides, with a router at each but the last."""
    return tuple(
        DecisionPoint(index, EASINESS, (frozenset({index}), frozenset(range(index + 1, exits))))
        for index in range(exits - 1)
    )


def replay(
    points: Sequence[DecisionPoint], signals: Sequence[Float32Array], policy: Policy, images: int
) -> Int64Array:
    """(N,) way that each of ``images`` images takes, from the signals of all of them at each point.

    The policy must be one that may be asked without learning from it.
    """
    crowds = {frozenset(range(count_ways(points))): np.arange(images)}  # by what is still open
    for point, signal in zip(points, signals, strict=True):
        rows = crowds.pop(frozenset[int]().union(*point.ways))
        outcomes = policy.decide(signal[rows], point.of(rows))
        for outcome, reached in enumerate(point.ways):
            crowds[reached] = rows[outcomes == outcome]
    ways = np.empty(images, np.int64)
    for (way,), rows in crowds.items():
        ways[rows] = way
    return ways


def shared_easiness(easiness: npt.ArrayLike) -> Float64Array:
    """(N,) the value that a threshold shared by all routers is compared with.

    An image reaches the last exit exactly when it is below the threshold at every router, that is
    when its largest easiness is. NaN counts as -1: below every threshold.
    """
    rows = np.atleast_2d(np.asarray(easiness, np.float64))
    return np.asarray(np.where(np.isnan(rows), -1.0, rows).max(axis=0), np.float64)


def percentile_thresholds(easiness: npt.ArrayLike, percentiles: npt.ArrayLike) -> Float64Array:
    """Thresholds that send the given percentages, 0 to 100, of the images on to the last exit.

    The p-th percentile of the easiness as threshold sends p % of the images on, as the published
    variable-speed inference does it (Lin et al., "DynamicDet", CVPR 2023, section 3.4); equal to
    ``numpy.percentile`` with its default, linear interpolation. N must be at least 1.
    """
    found = np.percentile(shared_easiness(easiness), np.asarray(percentiles, np.float64))
    return np.asarray(np.maximum(found, SEND_NONE), np.float64)  # NaN may have drawn it below 0


def exits_at(easiness: npt.ArrayLike, threshold: float) -> Int64Array:
    """(N,) index of the exit at which each image leaves, at one threshold for all routers."""
    return exits_under(easiness, Threshold(threshold))


def exits_under(easiness: npt.ArrayLike, policy: Policy) -> Int64Array:
    """(N,) index of the exit at which each image leaves."""
    rows = np.atleast_2d(np.asarray(easiness, np.float32))  # as the runtime compares
    return replay(cascade_points(len(rows) + 1), tuple(rows), policy, rows.shape[1])


def hard_fraction_at(easiness: npt.ArrayLike, threshold: float) -> float:
    """Share of the images that reach the last exit, in [0, 1]."""
    return float(exit_shares_at(easiness, threshold)[-1])


def exit_shares_at(easiness: npt.ArrayLike, threshold: float) -> Float64Array:
    """(exits,) share of the images that leave at each exit."""
    return np.asarray(exit_shares_along(easiness, [threshold])[0], np.float64)


def distinct_thresholds(easiness: npt.ArrayLike) -> Float64Array:
    """(T,) rising: one threshold for each of the choices of exits that a shared one can make."""
    rows = np.atleast_2d(np.asarray(easiness, np.float32))
    return np.unique([SEND_NONE, *rows[rows >= 0].tolist(), SEND_ALL])


def exit_shares_along(easiness: npt.ArrayLike, thresholds: npt.ArrayLike) -> Float64Array:
    """(T, exits) share of the images that leave at each exit, at each of (T,) thresholds."""
    rows = np.atleast_2d(np.asarray(easiness, np.float32))
    compared = np.asarray(thresholds, np.float32)
    # an image has left by exit i where its largest easiness up to there reaches the threshold
    largest = np.sort(np.maximum.accumulate(np.where(np.isnan(rows), -1, rows)), axis=1)
    count = rows.shape[1]
    left = [count - np.searchsorted(row, compared) for row in largest]
    edges = np.stack([np.zeros_like(left[0]), *left, np.full_like(left[0], count)], axis=1)
    return np.asarray(np.diff(edges, axis=1) / count, np.float64)


def mean_ms(shares: npt.ArrayLike, exit_ms: Sequence[Sequence[float]]) -> float:
    """Expected milliseconds of an image, when ``shares`` (exits,) of them leave at each exit.

    ``exit_ms`` holds measured milliseconds of images that leave at each exit.
    """
    return float(np.asarray(shares, np.float64) @ [np.mean(samples) for samples in exit_ms])


def percentile_ms(
    shares: npt.ArrayLike, exit_ms: Sequence[Sequence[float]], percentile: float
) -> float:
    """The given percentile of the milliseconds of an image: that of the mixture of all exits.

    Every sample of an exit weighs its exit's share divided by the number of that exit's samples;
    the result is the smallest time by which at least ``percentile`` % of the weight is done.
    """
    times = np.concatenate([np.asarray(samples, np.float64) for samples in exit_ms])
    sizes = np.array([len(samples) for samples in exit_ms])
    weights = np.repeat(np.asarray(shares, np.float64) / sizes, sizes)
    order = np.argsort(times, kind="stable")
    done = np.cumsum(weights[order])
    reached = np.searchsorted(done, percentile / 100 - 1e-12)
    return float(times[order][min(int(reached), len(times) - 1)])
