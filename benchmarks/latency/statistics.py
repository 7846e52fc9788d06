"""Figures of calls with bootstrap intervals over rounds, and tests on rounds. Pure functions.

Calls of one round share a moment of the machine and are not independent, so in a comparison of two
runs a round counts once, by its median or mean (Kalibera and Jones, "Rigorous benchmarking in
reasonable time", ISMM 2013: the unit of a test is the level at which repetitions are independent).
What differs from one start of a process to the next, such as where memory lies, no test on the
rounds of one start can see: that is what a tolerance is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb

import numpy as np

from dyninfer.benchmarks.latency.scenario_record import Distribution, Estimate
from dyninfer.types import Float64Array, Int64Array

CONFIDENCE = 0.95
RESAMPLES = 1000
RATIO_RESAMPLES = 2000
PERMUTATIONS = 9999
SEED = 0
LEAST_ROUNDS = 5
"""Fewer rounds make intervals that are too narrow; one round makes none."""
_PERCENTILES = (0.5, 0.9, 0.99, 0.999, 0.95)  # in the order of a Distribution's fields
Rounds = Sequence[float] | Float64Array
"""One figure for each round."""
Summary = Callable[[Float64Array], Float64Array]
"""(..., R) one figure for each round -> (...) one for all."""


def supports(count: int, quantile: float) -> bool:
    """Whether ``count`` calls say anything of a quantile above the median.

    The largest of n independent calls lies above the true quantile q with probability 1 - q^n.
    Below 95 % (:data:`CONFIDENCE`) it is more likely than we accept to be too low however
    it is made (Hahn and Meeker, "Statistical Intervals", 1991, section 5.2: a distribution-free
    upper bound). For 95 % it takes 29 calls for p90, 59 for p95, 299 for p99 and 2995 for p99.9.
    """
    return quantile <= 0.5 or 1 - quantile**count >= CONFIDENCE


def calls_needed(quantile: float) -> int:
    """The smallest count that :func:`supports` a quantile."""
    return int(np.ceil(np.log1p(-CONFIDENCE) / np.log(quantile) - 1e-9))


def draw_rounds(rounds: int) -> Int64Array:
    """(RESAMPLES, rounds) how often each round is in each bootstrap sample; the same every time.

    Calls of one round are not independent: they share a moment of the machine. Drawing calls one
    by one would make intervals too narrow, so rounds are drawn (the cluster bootstrap: Davison
    and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). With ten rounds
    an interval holds the truth in about 90 to 95 % of all runs.
    """
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
    """The ratio of two sums over one round or more, such as milliseconds by images."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    counts = draw_rounds(len(above))
    return estimate_of(float(above.sum() / below.sum()), (counts @ above) / (counts @ below))


def inverse(estimate: Estimate, of: float = 1.0) -> Estimate:
    """``of`` over a positive estimate; the ends of the interval change places."""
    return Estimate(of / estimate.value, of / estimate.high, of / estimate.low)


def distribution(rounds_ms: Sequence[Sequence[float]]) -> Distribution:
    """Where the calls of all rounds lie; quantiles interpolate linearly between calls.

    Rounds without a call are left out; one at least has some.
    """
    rounds = [np.asarray(calls, np.float64) for calls in rounds_ms if len(calls)]
    calls = np.concatenate(rounds)
    round_of = np.repeat(np.arange(len(rounds)), [len(each) for each in rounds])
    counts = draw_rounds(len(rounds))
    drawn = np.array([_figures(np.repeat(calls, repeats[round_of])) for repeats in counts])
    mean, median, *tails = map(estimate_of, _figures(calls).tolist(), drawn.T)
    supported = [
        tail if supports(len(calls), quantile) else None
        for quantile, tail in zip(_PERCENTILES[1:], tails, strict=True)
    ]
    ends = float(calls.min()), float(calls.max())
    return Distribution(len(calls), mean, *ends, median, *supported)


def _figures(calls: Float64Array) -> Float64Array:
    """Mean and percentiles."""
    return np.array([calls.mean(), *np.quantile(calls, _PERCENTILES)])


def permutation_p(old: Rounds, new: Rounds) -> float:
    """One-sided p-value of "the new run does not lie above the old", one value for each round.

    A permutation test with the rank sum as its statistic (Wilcoxon 1945), so that a single round
    that was disturbed weighs no more than its rank. The labels are shuffled
    :data:`PERMUTATIONS` times; p counts the order that was found as one of them, so that it is
    never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010).
    """
    ranks = _ranks(np.concatenate([np.asarray(old, np.float64), np.asarray(new, np.float64)]))
    found = float(ranks[len(old) :].sum())
    drawn = _shuffles(len(old), len(new)) @ ranks
    as_far = int((drawn >= found - 1e-9).sum())
    return (as_far + 1) / (PERMUTATIONS + 1)


def p_beyond(
    old: Sequence[float], new: Sequence[float], tolerance: float, summary: Summary
) -> float:
    """p-value of "the change is within the tolerance", one time for each round of both runs.

    The null hypothesis is not "no change": with rounds enough that would call any change by a
    little more than the tolerance certain to be beyond it. What is tested is the nearer edge: of
    a new run whose summary is above ``1 + tolerance`` times the old one's, whether its rounds lie
    above the old ones times that, and the reverse below (a shifted two-sample test, as in tests
    of equivalence; Wellek, "Testing Statistical Hypotheses of Equivalence and Noninferiority",
    2010). Doubled, since the data choose the edge; 1 where the summary is within the tolerance.
    """
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)
    ratio, edge = float(summary(after) / summary(before)), 1 + tolerance
    if ratio > edge:
        return min(1.0, 2 * permutation_p(before * edge, after))
    if ratio < 1 / edge:
        return min(1.0, 2 * permutation_p(after * edge, before))
    return 1.0


def smallest_p(old_rounds: int, new_rounds: int) -> float:
    """:func:`p_beyond` of two runs of which every round of one is far above those of the other."""
    return min(1.0, 2 * max(1 / comb(old_rounds + new_rounds, new_rounds), 1 / (PERMUTATIONS + 1)))


def _ranks(values: Float64Array) -> Float64Array:
    """1 for the smallest; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64Array = (last - (counts - 1) / 2)[inverse]
    return ranks


@lru_cache(maxsize=32)
def _shuffles(old_rounds: int, new_rounds: int) -> Float64Array:
    """(PERMUTATIONS, rounds): 1 where a shuffle calls a round one of the new run."""
    rng = np.random.default_rng([SEED, old_rounds, new_rounds])
    labels = np.zeros((PERMUTATIONS, old_rounds + new_rounds))
    labels[:, old_rounds:] = 1
    return rng.permuted(labels, axis=1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given.

    So that the chance of even one false alarm among all stays at the level that each is compared
    with (Holm, "A simple sequentially rejective multiple test procedure", 1979).
    """
    order = np.argsort(p_values, kind="stable")
    count, largest = len(p_values), 0.0
    corrected = [0.0] * count
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (count - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def ratio_of_rounds(
    old: Sequence[float], new: Sequence[float], confidence: float, summary: Summary
) -> Estimate:
    """New over old, with a bootstrap interval that draws the rounds of both runs again."""
    rng = np.random.default_rng(SEED)
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)

    def drawn(values: Float64Array) -> Float64Array:
        return summary(values[rng.integers(len(values), size=(RATIO_RESAMPLES, len(values)))])

    value = float(summary(after) / summary(before))
    return estimate_of(value, drawn(after) / drawn(before), confidence)


def median_of(values: Float64Array) -> Float64Array:
    """Median over the last axis."""
    return np.asarray(np.median(values, axis=-1), np.float64)


def mean_of(values: Float64Array) -> Float64Array:
    """Mean over the last axis."""
    return np.asarray(values.mean(axis=-1), np.float64)
