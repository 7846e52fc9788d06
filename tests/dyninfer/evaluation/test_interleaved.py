from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import (
    bootstrap_median,
    compare,
    is_stable,
    mean_interval,
    quantiles,
    round_order,
    run_rounds,
    warm_up,
)


class Contestant:
    """Takes the given times, one after the other, and notes that it ran."""

    def __init__(self, name, times_ms, log):
        self.name = name
        self.times_ms = iter(times_ms)
        self.log = log

    def __call__(self):
        self.log.append(self.name)
        return next(self.times_ms)


@pytest.mark.parametrize(
    ("times_ms", "stable"),
    [
        ([], False),
        ([10, 10], False),
        ([10, 10.2, 10.5], True),
        ([10, 10.2, 10.6], False),
        ([90, 30, 10, 10.2, 10.4], True),
        ([10, 10, 10, 20], False),
    ],
)
def test_times_are_stable_when_the_last_three_lie_close(times_ms, stable):
    assert is_stable(times_ms) is stable


def test_warm_up_ends_when_stable():
    log = []
    assert warm_up(Contestant("a", [90, 30, 10, 10, 10, 10], log)) == [90, 30, 10, 10, 10]


def test_warm_up_ends_at_its_limit():
    log = []
    growing = [2**i for i in range(20)]
    assert len(warm_up(Contestant("a", growing, log), max_runs=4)) == 4
    assert len(warm_up(Contestant("a", growing, log))) == 10


def test_every_contestant_runs_once_a_round_and_times_keep_their_order():
    log = []
    times = {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8], "c": [9, 10, 11, 12]}
    contestants = {name: Contestant(name, values, log) for name, values in times.items()}
    ended = []
    assert run_rounds(contestants, 4, lambda: ended.append(len(log))) == times
    assert ended == [3, 6, 9, 12]
    for start in range(0, 12, 3):
        assert sorted(log[start : start + 3]) == ["a", "b", "c"]


def test_each_order_is_followed_by_its_reverse():
    names = ["a", "b", "c", "d"]
    for even in range(0, 10, 2):
        assert round_order(names, even) == round_order(names, even + 1)[::-1]


def test_orders_change_but_are_the_same_for_the_same_seed():
    names = ["a", "b", "c", "d"]
    orders = {tuple(round_order(names, index)) for index in range(20)}
    assert len(orders) > 4
    assert round_order(names, 6, seed=3) == round_order(names, 6, seed=3)


def test_an_even_drift_does_not_favour_either():
    clock = iter(range(100, 100_000))  # every run takes longer than the one before
    times = run_rounds({"a": lambda: float(next(clock)), "b": lambda: float(next(clock))}, 40)
    assert np.mean(times["a"]) == pytest.approx(np.mean(times["b"]))


def test_quantiles():
    found = quantiles([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.runs, found.min_ms, found.median_ms, found.max_ms) == (5, 1, 3, 5)
    assert (found.p25_ms, found.p75_ms) == (2, 4)


def test_quantiles_of_nothing_are_refused():
    with pytest.raises(InputError, match="no times"):
        quantiles([])


def test_ratios_are_taken_round_by_round():
    # the machine was ten times slower in the second round: the ratio does not notice
    found = compare([1, 20], [2, 40])
    assert (found.low, found.median, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("ours", "theirs"), [([1, 2], [1]), ([1], [1]), ([1, 2], [1, 2, 3])])
def test_what_cannot_be_paired_is_refused(ours, theirs):
    told = (
        f"{len(ours)} and {len(theirs)} times cannot be paired; expected equally many, at least 2"
    )
    with pytest.raises(InputError, match=told):
        compare(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([1, 0], [1, 1]),
        ([1, 1], [0, 1]),
        ([-0.5, 1], [1, 1]),
        ([1, 1], [1, -0.5]),
        ([0, 0], [0, 0]),
    ],
)
def test_a_time_that_is_not_positive_is_refused(ours, theirs):
    with pytest.raises(InputError, match="not positive"):
        compare(ours, theirs)
    assert compare([0.25, 0.25], [0.5, 0.5]).median == 0.5


def test_the_interval_holds_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        found = bootstrap_median(rng.lognormal(np.log(0.9), 0.2, 30), resamples=500)
        held += found.low <= 0.9 <= found.high
    assert 0.88 < held / 200 <= 1


def test_more_rounds_narrow_the_interval():
    rng = np.random.default_rng(1)
    few, many = (bootstrap_median(rng.normal(1, 0.1, rounds)) for rounds in (10, 300))
    assert many.high - many.low < (few.high - few.low) / 2


def test_compare_gives_the_same_answer_again():
    rng = np.random.default_rng(2)
    ours, theirs = rng.uniform(8, 10, 30), rng.uniform(9, 11, 30)
    first = compare(ours, theirs)
    assert first == compare(ours, theirs)
    assert first.low <= first.median <= first.high
    assert (first.rounds, first.confidence) == (30, 0.95)
    assert first.median == pytest.approx(np.median(ours / theirs))


def test_the_interval_of_a_mean_is_by_blocks_of_successive_times() -> None:
    # two blocks of means 1 and 3: Student's t of one degree of freedom is 12.71
    assert mean_interval([1.0, 3.0]) == pytest.approx((2 - 12.71, 2 + 12.71))
    # ten blocks of ten: of the slow half of a minute, single times would say far less
    drifting = [10.0] * 50 + [12.0] * 50
    low, high = mean_interval(drifting)
    reach = 2.26 * np.std([10.0] * 5 + [12.0] * 5, ddof=1) / np.sqrt(10)
    assert (low, high) == pytest.approx((11 - reach, 11 + reach))
    assert mean_interval([5.0] * 30) == (5, 5)
    assert mean_interval([5.0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("count", [*range(2, 11), 11, 29, 30])
def test_the_interval_of_a_mean_is_student_s_of_up_to_ten_blocks(count) -> None:
    times = np.random.default_rng(count).uniform(5, 9, count)
    means = [block.mean() for block in np.array_split(times, min(count, 10))]
    low, high = stats.t.interval(0.95, len(means) - 1, 0, stats.sem(means))
    assert mean_interval(times) == pytest.approx(
        (times.mean() + low, times.mean() + high), rel=3e-3
    )


def test_the_interval_of_a_median_holds_95_of_a_hundred_of_them() -> None:
    """By counting: the median of so many draws is below a value as often as half of them are."""
    found = bootstrap_median(np.arange(1001.0))
    low, high = stats.binom.interval(0.95, 1001, 0.5)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2)
    assert (found.median, found.rounds, found.confidence) == (500, 1001, 0.95)
