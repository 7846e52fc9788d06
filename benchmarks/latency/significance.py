"""Whether two independent runs differ: tests and intervals on rounds. Pure functions.

Calls of one round share a moment of the machine and are not independent, so a round counts once,
by its median or mean (Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013:
the unit of a test is the level at which repetitions are independent). What differs from one start
of a process to the next, such as where memory lies, no test on the rounds of one start can see:
that is what a tolerance is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.latency.scenario_record import Estimate
from dyninfer.benchmarks.latency.statistics import estimate_of
from dyninfer.errors import InputError
from dyninfer.types import Float64Array

PERMUTATIONS = 9999
RESAMPLES = 2000
SEED = 0

Rounds = Sequence[float] | Float64Array
"""One figure for each round."""
Summary = Callable[[Float64Array], Float64Array]
"""(..., R) one figure for each round -> (...) one for all."""


def permutation_p(old: Rounds, new: Rounds) -> float:
    """One-sided p-value of "the new run does not lie above the old", one value for each round.

    A permutation test with the rank sum as its statistic (Wilcoxon 1945), so that a single round
    that was disturbed weighs no more than its rank. The labels are shuffled
    :data:`PERMUTATIONS` times; p counts the order that was found as one of them, so that it is
    never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

    Raises:
        InputError: one of the two has no round.
    """
    if not len(old) or not len(new):
        raise InputError("a run has no rounds, expected at least one in each")
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

    Raises:
        InputError: one of the two has no round.
    """
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if not len(before) or not len(after):
        raise InputError("a run has no rounds, expected at least one in each")
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
def _shuffles(old_rounds: int, new_rounds: int) -> npt.NDArray[np.float64]:
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
        return summary(values[rng.integers(len(values), size=(RESAMPLES, len(values)))])

    value = float(summary(after) / summary(before))
    return estimate_of(value, drawn(after) / drawn(before), confidence)


def median_of(values: Float64Array) -> Float64Array:
    """Median over the last axis."""
    return np.asarray(np.median(values, axis=-1), np.float64)


def mean_of(values: Float64Array) -> Float64Array:
    """Mean over the last axis."""
    return np.asarray(values.mean(axis=-1), np.float64)
