from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.significance import (
    PERMUTATIONS,
    holm,
    mean_of,
    median_of,
    p_beyond,
    permutation_p,
    ratio_of_rounds,
    smallest_p,
)
from dyninfer.errors import InputError


def test_the_p_value_is_that_of_the_rank_sum_test() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0):
        old, new = rng.normal(0, 1, 10), rng.normal(shift, 1, 12)
        expected = scipy_stats.mannwhitneyu(old, new, alternative="less", method="exact").pvalue
        assert permutation_p(old, new) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("old", "new"), [([], [1.0]), ([1.0], []), ([], [])])
def test_a_run_without_rounds_is_refused(old, new) -> None:
    with pytest.raises(InputError, match="no rounds"):
        permutation_p(old, new)
    with pytest.raises(InputError, match="no rounds"):
        p_beyond(old, new, 0.03, median_of)


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
