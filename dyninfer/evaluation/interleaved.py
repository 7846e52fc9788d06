"""Fair timing of several things on one machine: in turns, warmed up, compared pair by pair.

Absolute times of a shared machine drift; the ratio of two runs that follow each other drifts far
less. So every round runs every contestant once, in an order that changes from round to round, and
a comparison is the median of the ratios within rounds, with a bootstrap confidence interval.

Only :func:`run_rounds` and :func:`warm_up` run anything; the rest are pure functions on numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError

Run = Callable[[], float]
"""Runs a contestant once and returns its milliseconds."""

_CONFIDENCE = 0.95
STABLE_RUNS = 3
STABLE_SPREAD = 0.05
MIN_PAIRS = 2
BLOCKS = 10
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t at 97.5 % for 2 to :data:`BLOCKS` blocks."""


@dataclass(frozen=True)
class Quantiles:
    """Where the times of one contestant lie, in milliseconds."""

    runs: int
    min_ms: float
    p25_ms: float
    median_ms: float
    p75_ms: float
    max_ms: float


@dataclass(frozen=True)
class RatioEstimate:
    """A median of ratios taken round by round, with its confidence interval."""

    median: float
    low: float
    high: float
    confidence: float
    rounds: int


def is_stable(
    times_ms: Sequence[float], runs: int = STABLE_RUNS, spread: float = STABLE_SPREAD
) -> bool:
    """Whether the last ``runs`` times differ by at most ``spread`` of the smallest of them."""
    last = times_ms[-runs:]
    return len(last) == runs and max(last) - min(last) <= spread * min(last)


def warm_up(run: Run, max_runs: int = 10) -> list[float]:
    """Run until the times are stable or ``max_runs`` is reached; the times in milliseconds."""
    times_ms: list[float] = []
    while len(times_ms) < max_runs and not is_stable(times_ms):
        times_ms.append(run())
    return times_ms


def round_order(names: Sequence[str], round_index: int, seed: int = 0) -> list[str]:
    """The order of a round: random, so that no one always follows the same other one.

    Even rounds draw an order, the odd round after it runs the reverse: A B, B A, ...; whatever
    drifts evenly then falls on all alike.
    """
    rng = np.random.default_rng([seed, round_index // 2])
    order = [names[position] for position in rng.permutation(len(names))]
    return order[::-1] if round_index % 2 else order


def run_rounds(
    contestants: Mapping[str, Run],
    rounds: int,
    on_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Time all contestants, given by name, in turns.

    Returns:
        Name -> milliseconds, one for each round, in the order of the rounds.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for round_index in range(rounds):
        for name in round_order(list(contestants), round_index):
            times_ms[name].append(contestants[name]())
        on_round()
    return times_ms


def quantiles(times_ms: Sequence[float]) -> Quantiles:
    """Summary of the times of one contestant.

    Raises:
        InputError: there are no times.
    """
    if not times_ms:
        raise InputError("there are no times to summarise, expected at least one")
    return Quantiles(len(times_ms), *np.quantile(times_ms, [0, 0.25, 0.5, 0.75, 1]).tolist())


def mean_interval(times_ms: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by the means of up to :data:`BLOCKS` blocks of successive times.

    Successive times of a shared machine are alike, which would make an interval by single times too
    narrow (batch means; Law, "Simulation Modeling and Analysis", section 9.5). Of one time it is
    everything.
    """
    blocks = np.array_split(np.asarray(times_ms, np.float64), min(BLOCKS, len(times_ms)))
    if len(blocks) < MIN_PAIRS:
        return -math.inf, math.inf
    means = np.array([block.mean() for block in blocks])
    reach = _STUDENT[len(means) - 2] * float(means.std(ddof=1)) / math.sqrt(len(means))
    middle = float(np.mean(times_ms))
    return middle - reach, middle + reach


def bootstrap_median(values: npt.NDArray[np.float64], resamples: int = 5000) -> RatioEstimate:
    """Median of ``values`` with a percentile bootstrap interval (Efron 1979).

    The values are drawn again with replacement ``resamples`` times; the interval holds the
    central share :data:`_CONFIDENCE` of the medians.
    """
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(len(values), size=(resamples, len(values)))]
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(np.median(drawn, axis=1), [tail, 1 - tail]).tolist()
    return RatioEstimate(float(np.median(values)), low, high, _CONFIDENCE, len(values))


def compare(ours_ms: Sequence[float], theirs_ms: Sequence[float]) -> RatioEstimate:
    """Median of ours over theirs, round by round, with its interval: below 1, ours is faster.

    Raises:
        InputError: the two were not run equally often, or a time is not positive.
    """
    ours, theirs = np.asarray(ours_ms, np.float64), np.asarray(theirs_ms, np.float64)
    if ours.shape != theirs.shape or len(ours) < MIN_PAIRS:
        raise InputError(
            f"{len(ours)} and {len(theirs)} times cannot be paired; "
            f"expected equally many, at least {MIN_PAIRS}"
        )
    if not ((ours > 0).all() and (theirs > 0).all()):
        raise InputError("a time is not positive, so no ratio can be taken")
    return bootstrap_median(ours / theirs)
