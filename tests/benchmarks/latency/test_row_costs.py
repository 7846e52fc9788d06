from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.stats import binom

from dyninfer.benchmarks.latency.forced import hard_rows_by_call
from dyninfer.benchmarks.latency.model_record import RunsFor, StepCost
from dyninfer.benchmarks.latency.nonnegative import nonnegative_least_squares
from dyninfer.benchmarks.latency.row_costs import RowSpread, hard_rows, mean_cost, rows_run


@given(st.integers(1, 40), st.floats(0, 1))
def test_both_spreads_have_the_mean_asked_for(batch: int, hard: float) -> None:
    for spread in RowSpread:
        chances = hard_rows(batch, hard, spread)
        assert chances.shape == (batch + 1,)
        assert (chances >= 0).all()
        assert chances.sum() == pytest.approx(1)
        assert chances @ np.arange(batch + 1) == pytest.approx(batch * hard, abs=1e-6)


@given(st.integers(1, 16), st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.9, 1.0]))
def test_even_is_how_forced_fractions_fall(batch: int, hard: float) -> None:
    counts = hard_rows_by_call(hard, batch)
    share = counts.mean() / batch
    expected = np.bincount(counts, minlength=batch + 1) / len(counts)
    np.testing.assert_allclose(hard_rows(batch, share), expected, atol=1e-6)


def test_random_is_binomial() -> None:
    expected = binom.pmf(np.arange(9), 8, 0.3)
    np.testing.assert_allclose(hard_rows(8, 0.3, RowSpread.RANDOM), expected, atol=1e-12)
    assert hard_rows(1, 0.3).tolist() == pytest.approx([0.7, 0.3])


def test_rows_of_each_kind() -> None:
    rows = {part: rows_run(part, 3).tolist() for part in RunsFor}
    assert rows == {
        RunsFor.ALL: [3, 3, 3, 3],
        RunsFor.EASY: [3, 2, 1, 0],
        RunsFor.HARD: [0, 1, 2, 3],
        RunsFor.MIXED: [0, 3, 3, 0],
    }


def test_a_step_that_does_not_run_costs_nothing() -> None:
    step = StepCost("second", 10.0, 1.0, RunsFor.HARD)
    assert mean_cost(step, hard_rows(4, 0.0)) == 0
    # every fourth call runs it for one row
    assert mean_cost(step, hard_rows(1, 0.25)) == pytest.approx(11 / 4)
    assert mean_cost(step, hard_rows(4, 0.25)) == pytest.approx(11 / 4)
    # gathered by chance into fewer calls
    assert mean_cost(step, hard_rows(4, 0.25, RowSpread.RANDOM)) < 11 / 4


def test_least_squares_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for unknowns in (1, 2, 4):
        for _ in range(20):
            columns, wanted = rng.normal(size=(9, unknowns)), rng.normal(size=9)
            expected, _ = nnls(columns, wanted)
            np.testing.assert_allclose(
                nonnegative_least_squares(columns, wanted), expected, atol=1e-9
            )


def test_where_nothing_helps_all_unknowns_are_0() -> None:
    found = nonnegative_least_squares(np.ones((3, 2)), -np.ones(3))
    assert found.tolist() == [0, 0]
