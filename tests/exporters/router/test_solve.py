from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.exporters.router.solve import fit_gain


def example(features: int, count: int = 300, noise: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, features))
    gain = 2 * values[:, 0] + noise * rng.normal(size=count)
    first = rng.uniform(1, 2, count)
    return values, np.stack([first + gain, first], 1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_the_feature_that_tells_is_found():
    features, losses = example(5)
    gain = fit_gain(features, losses)
    assert gain is not None
    assert gain.weights[0] > 5 * np.abs(gain.weights[1:]).max()


def test_estimates_have_median_zero_and_unit_spread():
    features, losses = example(4)
    gain = fit_gain(features, losses)
    assert gain is not None
    estimates = gain(features)
    assert np.median(estimates) == pytest.approx(0, abs=1e-9)
    assert estimates.std() == pytest.approx(1)


@settings(deadline=None, max_examples=20)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 50), seed=st.integers(0, 1000))
def test_units_of_features_and_losses_do_not_matter(shift: float, scale: float, seed: int):
    features, losses = example(3, count=60, seed=seed)
    plain = fit_gain(features, losses)
    other = fit_gain(features * scale + shift, losses * scale)
    assert plain is not None
    assert other is not None
    np.testing.assert_allclose(other(features * scale + shift), plain(features), atol=1e-4)


def test_many_features_of_few_images_do_not_drown_what_tells():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(400, 3))
    features = hidden @ rng.normal(size=(3, 600)) + rng.normal(size=(400, 600))
    first = np.ones(400)
    losses = np.stack([first + hidden[:, 0], first], 1)
    gain = fit_gain(features[:100], losses[:100])
    assert gain is not None
    assert correlation(gain(features[100:]), hidden[100:, 0]) > 0.7


def test_one_image_with_a_huge_gain_does_not_decide():
    features, losses = example(3)
    losses[0, 0] += 1e6
    gain = fit_gain(features, losses)
    assert gain is not None
    assert correlation(gain(features), features[:, 0]) > 0.9


def test_features_or_gains_that_do_not_vary_give_nothing():
    features, losses = example(3)
    assert fit_gain(np.ones_like(features), losses) is None
    assert fit_gain(features, np.ones_like(losses)) is None


def test_a_constant_feature_among_others_gets_no_weight():
    features, losses = example(3)
    features[:, 1] = 7
    gain = fit_gain(features, losses)
    assert gain is not None
    assert gain.weights[1] == 0
