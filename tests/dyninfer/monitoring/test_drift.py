from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from dyninfer.monitoring import drift

TENTHS = np.linspace(0, 1, 11)[1:-1]
counts_of_ten = st.lists(st.integers(0, 500), min_size=10, max_size=10).map(np.array)
sample = st.lists(st.integers(0, 20), min_size=1, max_size=40).map(lambda v: np.array(v) / 20)


@pytest.mark.parametrize(
    "levels", [np.arange(1001) / 1000, np.arange(256) / 255, np.arange(1025) / 1024]
)
def test_usual_levels_are_far_from_the_border_of_two_steps(levels) -> None:
    for rounding in (-1e-7, 1e-7):
        assert (drift.on_grid(levels + rounding) == drift.on_grid(levels)).all()


@given(st.floats(0, 1))
def test_a_step_is_near(value) -> None:
    step = float(drift.on_grid(value))
    assert abs(step - value) <= drift.GRID / 2
    assert float(drift.on_grid(step)) == step


def test_bins_are_deciles_that_hold_a_tenth_each() -> None:
    reference = np.random.default_rng(0).beta(2, 8, 1000)
    edges = drift.bin_edges(reference)
    assert drift.bin_counts(reference, edges).tolist() == [100.0] * 10


@pytest.mark.parametrize("reference", [[], [0.5], [0.3] * 100, [0.2] * 50 + [0.4, 0.6] * 25])
def test_bins_are_equally_wide_where_deciles_coincide(reference) -> None:
    np.testing.assert_allclose(drift.bin_edges(reference), TENTHS)


def test_a_value_on_an_edge_is_in_the_upper_bin_and_the_outermost_bins_are_open() -> None:
    counts = drift.bin_counts([-5, 0, 0.1, 0.0999, 0.9, 1, 7], TENTHS)
    assert counts.tolist() == [3, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert drift.bin_counts([], TENTHS).tolist() == [0] * 10


def test_the_stability_index_is_what_its_formula_gives_by_hand() -> None:
    # (9 + 1/2) / 11, (1 + 1/2) / 11 against (4.5 / 9, 4.5 / 9)
    p, q = np.array([9.5, 1.5]) / 11, np.array([0.5, 0.5])
    expected = (p[0] - q[0]) * np.log(p[0] / q[0]) + (p[1] - q[1]) * np.log(p[1] / q[1])
    assert drift.population_stability_index([9, 1], [4, 4]) == pytest.approx(expected)


@given(counts_of_ten, counts_of_ten)
def test_the_stability_index_is_symmetric_finite_and_zero_only_for_the_same(a, b) -> None:
    value = drift.population_stability_index(a, b)
    assert np.isfinite(value)
    assert value >= 0
    assert value == pytest.approx(drift.population_stability_index(b, a))
    assert drift.population_stability_index(a, a) == 0


def test_the_noise_of_the_stability_index_is_that_of_chi_square() -> None:
    expected = stats.chi2.ppf(0.999, 9) * (1 / 500 + 1 / 2000)
    assert drift.stability_noise(10, 500, 2000, 0.001) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("n", "m"), [(100, 50), (500, 50), (500, 2000)])
def test_samples_of_one_population_exceed_their_noise_as_rarely_as_they_should(n, m) -> None:
    generator = np.random.default_rng(1)
    exceeded = 0
    for _ in range(2000):
        reference = generator.beta(2, 1, m)
        edges = drift.bin_edges(reference)
        counts = drift.bin_counts(generator.beta(2, 1, n), edges)
        value = drift.population_stability_index(counts, drift.bin_counts(reference, edges))
        exceeded += value > drift.stability_noise(10, n, m, 0.05)
    assert 0.01 < exceeded / 2000 < 0.07


def test_the_noise_of_a_share_is_that_of_two_binomial_samples() -> None:
    generator = np.random.default_rng(2)
    shares = [generator.binomial(size, 0.3, 20_000) / size for size in (200, 300)]
    exceeded = np.abs(shares[0] - shares[1]) > drift.share_noise(0.3, 200, 300, 0.05)
    assert 0.04 < exceeded.mean() < 0.06
    assert drift.share_noise(0.0, 200, 300, 0.05) == 0


@given(sample, sample)
def test_the_ks_statistic_is_scipys_ties_included(a, b) -> None:
    with np.errstate(divide="ignore"):  # scipy's p-value of tiny samples, which is not read
        expected = stats.ks_2samp(a, b, method="asymp").statistic
    assert drift.ks_statistic(a, b) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(st.integers(20, 500), st.integers(20, 500), st.floats(0, 0.3), st.integers(0, 1000))
def test_the_p_value_is_close_to_scipys_exact_one(n, m, shift, seed) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.random(n), generator.random(m) + shift
    exact = stats.ks_2samp(a, b, method="exact")
    found = drift.ks_p_value(float(exact.statistic), n, m)
    assert found == pytest.approx(exact.pvalue, rel=0.3, abs=0.03)


def test_the_p_value_of_identical_samples_is_one_and_of_disjoint_ones_nothing() -> None:
    assert drift.ks_p_value(0.0, 10, 10) == 1.0
    assert drift.ks_statistic([0.1, 0.2], [0.8]) == 1.0
    assert drift.ks_p_value(1.0, 500, 500) < 1e-100
    values = [drift.ks_p_value(d, 80, 300) for d in np.linspace(0, 1, 400)]
    assert (np.diff(values) <= 0).all()
    assert values[0] == 1.0


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_bounds_hold_the_mean_and_tighten_with_confidence_given_up(mean, count) -> None:
    low, high = drift.mean_bounds(mean, count, 0.01)
    looser = drift.mean_bounds(mean, count, 0.1)
    assert 0 <= low <= looser[0] <= mean <= looser[1] <= high <= 1


def test_bounds_without_any_loss_are_those_of_so_many_heads_in_a_row() -> None:
    assert drift.mean_bounds(0.0, 30, 0.05) == (0.0, pytest.approx(1 - 0.05 ** (1 / 30)))
    assert drift.mean_bounds(1.0, 30, 0.05) == (pytest.approx(0.05 ** (1 / 30)), 1.0)
    assert drift.mean_bounds(0.4, 0, 0.05) == (0.0, 1.0)


@pytest.mark.parametrize("count", [5, 40, 300])
def test_bounds_are_wrong_no_more_often_than_they_may_be(count) -> None:
    generator = np.random.default_rng(3)
    wrong = np.zeros(2)
    for _ in range(2000):
        losses = generator.beta(0.2, 1.8, count)  # expectation 0.1
        low, high = drift.mean_bounds(float(losses.mean()), count, 0.05)
        wrong += low > 0.1, high < 0.1
    assert (wrong / 2000 <= 0.05).all()


@pytest.mark.parametrize(
    ("value", "step"),
    [(0.49, 0), (0.51, 1), (1.49, 1), (-0.49, 0), (-0.51, -1), (4096.4, 4096), (8191.6, 8192)],
)
def test_a_step_is_the_8192nd_part(value, step) -> None:
    assert float(drift.on_grid(value / 8192)) == step / 8192


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1))
def test_the_p_value_is_kolmogorov_s_at_stephens_s_distance(n, m, statistic) -> None:
    root = np.sqrt(n * m / (n + m))
    expected = special.kolmogorov((root + 0.12 + 0.11 / root) * statistic)
    assert drift.ks_p_value(statistic, n, m) == pytest.approx(expected, abs=1e-11)


@given(st.floats(0.05, 0.95), st.integers(30, 5000), st.sampled_from([0.001, 0.05, 0.3]))
def test_bounds_lie_where_so_many_coins_would_be_as_unlikely_as_is_allowed(mean, count, level):
    for bound in drift.mean_bounds(mean, count, level):
        information = stats.entropy([mean, 1 - mean], [bound, 1 - bound])
        assert count * information == pytest.approx(np.log(1 / level), rel=1e-6)


def test_the_noise_of_a_share_is_its_deviation_times_that_of_a_normal_number() -> None:
    for share, n, m, level in ((0.3, 200, 300, 0.05), (0.9, 10, 10_000, 0.001)):
        deviation = np.sqrt(share * (1 - share) / n + share * (1 - share) / m)
        expected = stats.norm.ppf(1 - level / 2) * deviation
        assert drift.share_noise(share, n, m, level) == pytest.approx(expected)
