"""Percentiles and means of calls, with bootstrap intervals over rounds. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dyninfer.benchmarks.latency.scenario_record import Distribution, Estimate
from dyninfer.errors import InputError
from dyninfer.types import Float64Array, Int64Array

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 0
LEAST_ROUNDS = 5
"""Fewer rounds make intervals that are too narrow; one round makes none."""
_PERCENTILES = (0.5, 0.9, 0.99, 0.999)


def supports(count: int, quantile: float, confidence: float = CONFIDENCE) -> bool:
    """Whether ``count`` calls say anything of a quantile above the median.

    The largest of n independent calls lies above the true quantile q with probability 1 - q^n.
    Below ``confidence`` of that, the estimate is more likely than we accept to be too low however
    it is made (Hahn and Meeker, "Statistical Intervals", 1991, section 5.2: a distribution-free
    upper bound). For 95 % it takes 29 calls for p90, 299 for p99 and 2995 for p99.9.
    """
    return quantile <= 0.5 or 1 - quantile**count >= confidence


def calls_needed(quantile: float, confidence: float = CONFIDENCE) -> int:
    """The smallest count that :func:`supports` a quantile."""
    return int(np.ceil(np.log1p(-confidence) / np.log(quantile) - 1e-9))


def draw_rounds(rounds: int) -> Int64Array:
    """(RESAMPLES, rounds) how often each round is in each bootstrap sample; the same every time.

    Calls of one round are not independent: they share a moment of the machine. Drawing calls one
    by one would make intervals too narrow, so rounds are drawn (the cluster bootstrap: Davison
    and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). With ten rounds
    an interval holds the truth in about 90 to 95 % of all runs.

    Raises:
        InputError: there is no round.
    """
    if rounds < 1:
        raise InputError("there is no round to take figures of, expected at least one")
    rng = np.random.default_rng(SEED)
    return rng.multinomial(rounds, np.full(rounds, 1 / rounds), size=RESAMPLES)


def estimate_of(value: float, drawn: Float64Array, confidence: float = CONFIDENCE) -> Estimate:
    """A figure with a percentile bootstrap interval: the central share of what was drawn.

    The interval is widened to hold the figure itself, which few rounds may leave outside.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return Estimate(value, min(low, value), max(high, value))


def ratio_estimate(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The ratio of two sums over rounds, such as milliseconds by images.

    Raises:
        InputError: there is no round.
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    counts = draw_rounds(len(above))
    return estimate_of(float(above.sum() / below.sum()), (counts @ above) / (counts @ below))


def quantiles_of_repeated(
    ordered: Float64Array, repeats: Int64Array, quantiles: Sequence[float]
) -> Float64Array:
    """Quantiles of values that occur more than once, or not at all, without writing them out.

    Equal to ``numpy.quantile(numpy.repeat(ordered, repeats), quantiles)``: linear interpolation
    between neighbours. The values (N,) rise, and some of the ``repeats`` (N,) are not 0.
    """
    reached = repeats.cumsum()
    ranks = np.asarray(quantiles) * (reached[-1] - 1)
    below = np.floor(ranks)
    first = ordered[reached.searchsorted(below, side="right")]
    then = ordered[reached.searchsorted(np.ceil(ranks), side="right")]
    return np.asarray(first + (then - first) * (ranks - below), np.float64)


def inverse(estimate: Estimate, of: float = 1.0) -> Estimate:
    """``of`` over a positive estimate; the ends of the interval change places."""
    return Estimate(of / estimate.value, of / estimate.high, of / estimate.low)


def distribution(rounds_ms: Sequence[Sequence[float]]) -> Distribution:
    """Where the calls of all rounds lie; quantiles interpolate linearly between calls.

    Rounds without a call are left out.

    Raises:
        InputError: there is no call.
    """
    rounds = [np.asarray(calls, np.float64) for calls in rounds_ms if len(calls)]
    if not rounds:
        raise InputError("there are no calls to summarise, expected at least one")
    calls = np.concatenate(rounds)
    order = np.argsort(calls, kind="stable")
    ordered = calls[order]
    round_of = np.repeat(np.arange(len(rounds)), [len(each) for each in rounds])[order]
    counts = draw_rounds(len(rounds))
    drawn = np.array([_figures(ordered, repeats[round_of]) for repeats in counts])
    whole = _figures(ordered, np.ones(len(calls), np.int64))
    mean, median, *tails = map(estimate_of, whole.tolist(), drawn.T)
    supported = [
        tail if supports(len(calls), quantile) else None
        for quantile, tail in zip(_PERCENTILES[1:], tails, strict=True)
    ]
    ends = float(calls.min()), float(calls.max())
    return Distribution(len(calls), mean, *ends, median, *supported)


def _figures(ordered: Float64Array, repeats: Int64Array) -> Float64Array:
    """Mean and percentiles of calls of which each occurs so often."""
    mean = (ordered @ repeats) / repeats.sum()
    return np.array([mean, *quantiles_of_repeated(ordered, repeats, _PERCENTILES)])
