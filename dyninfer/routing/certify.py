"""A threshold with a guarantee, from losses measured on a few hundred images.

The loss of an image at a threshold is that of the exit where it leaves, against the last exit's
detections; nobody has to label anything. :func:`certify` finds the lowest threshold whose
expected loss is at most ``risk`` with the given confidence, whatever the losses' distribution.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.calibration import Certificate
from dyninfer.errors import InputError
from dyninfer.routing.thresholds import SEND_ALL, SEND_NONE, exits_at, hard_fraction_at
from dyninfer.types import Float64Array

METHOD = "Waudby-Smith and Ramdas's betting bound, thresholds tested from the safest down"
_SHUFFLE_SEED = 0
CHUNK = 1 << 21  # losses held at a time: 16 MiB


def certify(
    easiness: npt.ArrayLike, losses: npt.ArrayLike, risk: float, confidence: float
) -> Certificate:
    """The lowest threshold whose expected loss is at most ``risk``, with ``confidence``.

    Thresholds are tested from the safest down, and the first that fails ends it: fixed-sequence
    testing (Angelopoulos et al., "Learn then Test", arXiv 2110.01052, section 2). The candidates
    may come from the data, because an image's loss never rises with the threshold (Bates et al.,
    "Distribution-free, risk-controlling prediction sets", JACM 2021, theorem 1). With more than
    two exits it may, so there the largest loss at any threshold from there up counts instead.

    Args:
        easiness: (routers, N) of every image at every router; NaN where a router said so.
        losses: (exits - 1, N) of every image at every exit but the last, in [0, 1]. The images
            must be independent draws from what the application will see.
        risk: expected loss of an image that is accepted, in (0, 1).
        confidence: probability, over the draw of these images, that the result keeps its
            promise, in (0.5, 1).

    Returns:
        The certificate. Where the images are too few for any threshold (see
        :func:`images_needed`), it is that of always running the last exit, whose loss is 0.

    Raises:
        InputError: an argument is out of range, or the arrays do not fit each other.
    """
    _check_levels(risk, confidence)
    values, lost = _check_arrays(easiness, losses)
    threshold = _lowest_threshold(values, lost, risk, confidence)
    leaving = exits_at(values, threshold)
    measured = np.concatenate([lost, np.zeros((1, lost.shape[1]))])
    return Certificate(
        risk=risk,
        confidence=confidence,
        threshold=threshold,
        hard_fraction=hard_fraction_at(values, threshold),
        measured_risk=float(measured[leaving, np.arange(len(leaving))].mean()),
        method=METHOD,
    )


def images_needed(risk: float, confidence: float) -> int:
    """The fewest images, to half a percent, that can certify anything: were all losses 0.

    Never fewer than log(1 - confidence) / log(1 - risk): with that number, a risk of ``risk`` in
    losses of 0 and 1 stays unseen with probability 1 - confidence.

    Raises:
        InputError: an argument is out of range.
    """
    _check_levels(risk, confidence)
    count = math.ceil(math.log(1 - confidence) / math.log(1 - risk))
    while _p_values(np.zeros((1, count)), risk, confidence)[0] > 1 - confidence:
        count += max(1, count // 200)
    return count


def describe_certificate(certificate: Certificate) -> str:
    """Two lines for humans: what is promised, and what is assumed."""
    promise = (
        f"threshold {certificate.threshold:.4g} ({certificate.hard_fraction:.1%} hard): expected "
        f"loss at most {certificate.risk:g} with {certificate.confidence:.4g} confidence"
    )
    if certificate.threshold >= SEND_ALL:
        promise = (
            f"only sending every image to the last exit keeps the expected loss at most "
            f"{certificate.risk:g} with {certificate.confidence:.4g} confidence"
        )
    return (
        f"{promise} (measured {certificate.measured_risk:.4g})\n"
        "assumed: later images are exchangeable with the calibration's; the loss is against the "
        "last exit's detections, not against the truth"
    )


def _lowest_threshold(
    easiness: npt.NDArray[np.float32], losses: Float64Array, risk: float, confidence: float
) -> float:
    """The end of the sequence of tests, as the smallest float32 that passed."""
    images = easiness.shape[1]
    candidates = np.unique(easiness[easiness >= 0])[::-1]
    step = max(1, CHUNK // images)
    nothing_lost = np.zeros((1, images))
    if _p_values(nothing_lost, risk, confidence)[0] > 1 - confidence:
        return SEND_ALL
    for start in range(0, len(candidates), step):
        chunk = candidates[start : start + step]
        passed = _p_values(_losses_from(easiness, losses, chunk), risk, confidence)
        failed = np.flatnonzero(passed > 1 - confidence)
        if len(failed):
            return float(np.nextafter(chunk[failed[0]], np.float32(np.inf)))
    return SEND_NONE


def _losses_from(
    easiness: npt.NDArray[np.float32],
    losses: Float64Array,
    thresholds: npt.NDArray[np.float32],
) -> Float64Array:
    """(thresholds, N) largest loss of every image at each threshold or any above it.

    At some threshold an image leaves at exit j exactly if it is easier there than at every
    earlier exit, and then at all thresholds from that maximum, exclusive, to its easiness there.
    """
    found = np.zeros((len(thresholds), easiness.shape[1]))
    easiest = np.full(easiness.shape[1], -1, np.float32)
    for values, lost in zip(easiness, losses, strict=True):
        leaves = (values > easiest) & (values >= thresholds[:, None])
        np.maximum(found, np.where(leaves, lost, 0.0), out=found)
        easiest = np.fmax(easiest, values)  # NaN goes on to the next router
    return found


def _p_values(losses: Float64Array, risk: float, confidence: float) -> Float64Array:
    """(rows,) p-value of the hypothesis that a row's expectation is at least ``risk``.

    A gambler bets on losses below ``risk``, each bet from the earlier losses alone; were the
    expectation ``risk`` or more, the capital would reach 1 / p with probability p at most
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    arXiv 2010.09686, section 4, with the bets of Bates et al., JACM 2021, section 3.1.3).
    On losses that are mostly small it certifies far more than the Hoeffding-Bentkus p-value.
    The bets are sized for ``confidence``; a p-value is valid whatever it is. Where the losses
    themselves average more than ``risk`` it is 1: a lucky start is no reason to promise less loss
    than was measured.
    """
    count = losses.shape[1]
    # a folder's order often goes by subject; the bets do better on a mixed one
    losses = losses[:, np.random.default_rng(_SHUFFLE_SEED).permutation(count)]
    seen = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses, axis=1)) / (1 + seen)
    variances = (0.25 + np.cumsum((losses - means) ** 2, axis=1)) / (1 + seen)
    earlier = np.concatenate([np.full((len(losses), 1), 0.25), variances[:, :-1]], axis=1)
    bets = np.minimum(1.0, np.sqrt(-2 * math.log(1 - confidence) / (count * earlier)))
    capital = np.cumsum(np.log1p(bets * (risk - losses)), axis=1).max(axis=1)
    lucky = losses.mean(axis=1) > risk
    return np.where(lucky, 1.0, np.exp(-np.maximum(capital, 0.0)))


def _check_levels(risk: float, confidence: float) -> None:
    if not 0 < risk < 1:
        raise InputError(f"risk is {risk!r}, expected a loss above 0 and below 1, such as 0.05")
    if not 0.5 < confidence < 1:
        raise InputError(
            f"confidence is {confidence!r}, expected above 0.5 and below 1, such as 0.95"
        )


def _check_arrays(
    easiness: npt.ArrayLike, losses: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], Float64Array]:
    """(routers, N) float32, as the runtime compares, and (exits - 1, N)."""
    values = np.atleast_2d(np.asarray(easiness, np.float32))
    lost = np.atleast_2d(np.asarray(losses, np.float64))
    if values.shape != lost.shape or values.ndim != 2 or not values.size:
        raise InputError(
            f"easiness is {values.shape} and losses {lost.shape}, expected one of each for every "
            "image at every exit but the last"
        )
    if not ((lost >= 0) & (lost <= 1)).all():
        raise InputError("a loss is not a number from 0 to 1")
    return values, lost
