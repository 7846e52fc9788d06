from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.scenario_record import Estimate
from dyninfer.benchmarks.latency.statistics import (
    calls_needed,
    distribution,
    draw_rounds,
    estimate_of,
    holm,
    inverse,
    mean_of,
    median_of,
    p_beyond,
    permutation_p,
    ratio_estimate,
    ratio_of_rounds,
    smallest_p,
    supports,
)

PERMUTATIONS = 9999
times = st.floats(0.01, 1e4)
rounds_of_times = st.lists(st.lists(times, min_size=1, max_size=20), min_size=1, max_size=6)


def test_one_call_is_its_own_median_and_has_no_other_percentile() -> None:
    found = distribution([[3.0]])
    assert found.p50_ms == found.mean_ms == Estimate(3.0, 3.0, 3.0)
    assert (found.count, found.min_ms, found.max_ms) == (1, 3.0, 3.0)
    assert found.p90_ms is found.p99_ms is found.p999_ms is None


@settings(max_examples=25, deadline=None)
@given(rounds_of_times)
def test_figures_are_those_of_all_calls(rounds: list[list[float]]) -> None:
    found, calls = distribution(rounds), np.concatenate(rounds)
    assert found.count == len(calls)
    assert found.mean_ms.value == pytest.approx(calls.mean())
    assert found.p50_ms.value == pytest.approx(np.median(calls))
    if found.p90_ms is not None:
        assert found.p90_ms.value == pytest.approx(np.quantile(calls, 0.9))
    for estimate in (found.mean_ms, found.p50_ms):
        assert found.min_ms * (1 - 1e-9) <= estimate.low <= estimate.value
        assert estimate.value <= estimate.high <= found.max_ms * (1 + 1e-9)


def test_an_interval_leaves_a_fortieth_of_what_was_drawn_on_either_side() -> None:
    drawn = np.random.default_rng(0).permutation(np.arange(1001.0))
    for value, confidence, low, high in (
        (500, 0.95, 25, 975),
        (500, 0.9, 50, 950),
        (9, 0.95, 9, 975),
    ):
        found = estimate_of(value, drawn, confidence)
        assert (found.low, found.high) == pytest.approx((low, high))
    assert estimate_of(500, drawn) == estimate_of(500, drawn, 0.95)


def test_every_bootstrap_sample_holds_as_many_rounds_as_there_are() -> None:
    counts = draw_rounds(7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)
    assert (draw_rounds(7) == counts).all()


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    drift, runs = 0.2, 25
    known = scipy.stats.lognorm(np.hypot(0.5, drift), scale=10)
    held = {0.5: 0, 0.9: 0}
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        times = 10 * np.exp(rng.normal(0, 0.5, (10, 30)) + rng.normal(0, drift, (10, 1)))
        found = distribution(times)
        assert found.p90_ms is not None
        for quantile, estimate in ((0.5, found.p50_ms), (0.9, found.p90_ms)):
            held[quantile] += estimate.low <= known.ppf(quantile) <= estimate.high
    assert all(count >= 0.85 * runs for count in held.values())


def test_high_percentiles_are_near_the_truth() -> None:
    known = scipy.stats.lognorm(0.5, scale=10)
    found = distribution(known.rvs((20, 400), random_state=np.random.default_rng(0)))
    assert found.p99_ms is not None
    assert found.p999_ms is not None
    assert found.p99_ms.value == pytest.approx(known.ppf(0.99), rel=0.05)
    assert found.p999_ms.value == pytest.approx(known.ppf(0.999), rel=0.15)


def test_intervals_agree_with_scipys_bootstrap_over_rounds() -> None:
    rng = np.random.default_rng(1)
    rounds = rng.gamma(4, 2, (15, 30)) + rng.normal(0, 2, (15, 1))
    ours = distribution(rounds).mean_ms
    theirs = scipy.stats.bootstrap(
        (rounds.mean(axis=1),), np.mean, method="percentile", n_resamples=20_000
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.15 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.15 * width)


def test_calls_of_a_round_that_share_its_drift_do_not_make_the_interval_narrow() -> None:
    drift = np.linspace(1, 3, 10)[:, None]
    few, many = (distribution(np.repeat(drift, count, axis=1)).mean_ms for count in (2, 200))
    assert many.high - many.low == pytest.approx(few.high - few.low)
    assert many.high - many.low > 0.5


@pytest.mark.parametrize(("quantile", "count"), [(0.9, 29), (0.99, 299), (0.999, 2995), (0.5, 5)])
def test_a_percentile_needs_so_many_calls(quantile: float, count: int) -> None:
    assert calls_needed(quantile) == count
    assert supports(count, quantile)
    assert 1 - quantile**count >= 0.95 > 1 - quantile ** (count - 1)
    if quantile > 0.5:
        assert not supports(count - 1, quantile)


def test_percentiles_appear_as_calls_suffice() -> None:
    assert distribution([[1.0] * 28]).p90_ms is None
    assert distribution([[1.0] * 29]).p90_ms is not None
    assert distribution([[1.0] * 58]).p95_ms is None
    assert distribution([[1.0] * 59]).p95_ms is not None
    assert distribution([[1.0] * 298]).p99_ms is None
    assert distribution([[1.0] * 2995]).p999_ms is not None


def test_a_ratio_is_of_the_sums_and_not_the_mean_of_ratios() -> None:
    found = ratio_estimate([10.0, 0.0], [1.0, 9.0])
    assert found.value == 1.0
    assert (found.low, found.high) == (0.0, 10.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(times, st.integers(1, 50)), min_size=1, max_size=8))
def test_the_inverse_of_a_ratio_is_that_of_its_parts(parts: list[tuple[float, int]]) -> None:
    spent, images = [ms for ms, _ in parts], [count for _, count in parts]
    one, other = ratio_estimate(spent, images), ratio_estimate(images, spent)
    turned = inverse(one, 1.0)
    assert turned.value == pytest.approx(other.value)
    assert turned.low <= turned.value <= turned.high
    assert inverse(turned).value == pytest.approx(one.value)


def test_the_p_value_is_that_of_the_rank_sum_test() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0):
        old, new = rng.normal(0, 1, 10), rng.normal(shift, 1, 12)
        expected = scipy_stats.mannwhitneyu(old, new, alternative="less", method="exact").pvalue
        assert permutation_p(old, new) == pytest.approx(expected, abs=0.02)


def test_equal_values_tell_nothing() -> None:
    assert permutation_p([1.0] * 6, [1.0] * 6) == 1


def test_runs_that_do_not_overlap_reach_the_smallest_p() -> None:
    old, new = list(range(5)), list(range(10, 15))
    assert p_beyond(old, new, 0.03, median_of) == pytest.approx(smallest_p(5, 5), abs=0.005)
    assert p_beyond(new, old, 0.03, median_of) == pytest.approx(smallest_p(5, 5), abs=0.005)
    assert smallest_p(1, 1) == 1
    assert smallest_p(30, 30) == 2 / (PERMUTATIONS + 1)


def test_a_change_within_the_tolerance_is_never_beyond_it_however_certain() -> None:
    old = [10 + 0.001 * index for index in range(12)]
    new = [value * 1.02 for value in old]
    assert permutation_p(old, new) == 1 / (PERMUTATIONS + 1)
    assert p_beyond(old, new, 0.03, median_of) == p_beyond(new, old, 0.03, median_of) == 1
    assert p_beyond(old, new, 0.01, median_of) == smallest_p(12, 12)


def test_at_the_edge_of_the_tolerance_half_of_the_runs_lie_beyond_and_few_significantly() -> None:
    rng = np.random.default_rng(0)
    runs = [(rng.lognormal(0, 0.02, 12), rng.lognormal(np.log(1.03), 0.02, 12)) for _ in range(400)]
    p_values = np.array([p_beyond(old, new, 0.03, median_of) for old, new in runs])
    assert 0.4 < np.mean(p_values < 1) < 0.6
    assert np.mean(p_values <= 0.05) < 0.05


def test_one_outlier_that_lifts_the_mean_does_not_turn_faster_rounds_into_slower_ones() -> None:
    old, new = [10.0 + 0.01 * index for index in range(12)], [9.0 + 0.01 * i for i in range(11)]
    assert p_beyond(old, [*new, 100.0], 0.03, mean_of) > 0.9


@pytest.mark.parametrize("faster", [False, True])
def test_within_the_tolerance_it_is_the_summary_that_counts_and_not_the_ranks(faster) -> None:
    steady = [10.0 + 0.01 * index for index in range(12)]
    lifted = [*(8.0 + 0.01 * index for index in range(11)), 32.0]  # its mean is the other's
    old, new = (lifted, steady) if faster else (steady, lifted)
    assert p_beyond(old, new, 0.03, mean_of) == 1


def test_one_disturbed_round_does_not_decide() -> None:
    old = [10 + 0.01 * index for index in range(12)]
    new = [*old[:-1], 1e6]
    assert p_beyond(old, new, 0.03, mean_of) > 0.5


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_helps(p_values) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


@pytest.mark.parametrize("summary", [median_of, mean_of])
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(summary) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        old, new = rng.lognormal(0, 0.03, 12), rng.lognormal(np.log(1.1), 0.03, 12)
        found = ratio_of_rounds(old, new, 0.95, summary)
        held += found.low <= 1.1 <= found.high
        assert found.low <= found.value <= found.high
    assert held / 150 > 0.85


@pytest.mark.parametrize(
    ("old", "new"),
    [([1, 2, 2, 3], [2, 3, 3, 4]), ([1, 1, 1, 2], [1, 2, 2, 2]), ([5, 5], [1, 5, 5, 9])],
)
def test_rounds_of_one_time_share_the_mean_of_their_ranks(old, new) -> None:
    ranks = scipy.stats.rankdata([*old, *new])
    found = ranks[len(old) :].sum()
    sums = [sum(chosen) for chosen in combinations(ranks, len(new))]
    expected = np.mean([total >= found - 1e-9 for total in sums])
    assert permutation_p(old, new) == pytest.approx(expected, abs=0.02)


def test_a_chance_is_never_beyond_1() -> None:
    old, new = [10.0 + 0.01 * index for index in range(12)], [9.0 + 0.01 * i for i in range(11)]
    assert p_beyond(old, [*new, 100.0], 0.03, mean_of) == 1
    assert p_beyond([*new, 100.0], [*old[:-1], 0.0], 0.03, mean_of) == 1


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 1), (0.25, 1), (0.5, 4), (0.9, 29)])
def test_the_median_and_what_is_below_it_need_no_number_of_calls(quantile, count) -> None:
    assert supports(count, quantile)
    assert not supports(1, 0.51)


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(1, 1, 1.0), (2, 1, 2 / 3), (3, 2, 0.2), (4, 4, 2 / 70)]
)
def test_the_smallest_p_is_that_of_rounds_that_do_not_overlap(old, new, expected) -> None:
    assert smallest_p(old, new) == pytest.approx(expected)


def test_exactly_at_the_tolerance_is_within_it() -> None:
    steady, lifted = [8.0] * 5, [10.0, 10.0, 10.0, 11.0, 12.0]  # a median of 1.25 times the other
    assert p_beyond(steady, lifted, 0.25, median_of) == 1
    assert p_beyond(lifted, steady, 0.25, median_of) == 1
    assert p_beyond(steady, lifted, 0.2, median_of) < 1
    assert p_beyond(lifted, steady, 0.2, median_of) < 1
