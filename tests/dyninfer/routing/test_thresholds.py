from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.routing.policy import route
from dyninfer.routing.thresholds import (
    SEND_ALL,
    SEND_NONE,
    distinct_thresholds,
    exit_shares_along,
    exit_shares_at,
    exits_at,
    hard_fraction_at,
    mean_ms,
    percentile_ms,
    percentile_thresholds,
    shared_easiness,
)

relaxed = settings(deadline=None)
# few values, so that ties are common
VALUE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]) | st.floats(0, 1, width=32)
CASCADES = st.integers(1, 3).flatmap(
    lambda routers: st.lists(st.tuples(*[VALUE] * routers), min_size=1, max_size=12).map(
        lambda images: np.array(images, np.float64).T
    )
)
THRESHOLD = st.sampled_from([SEND_NONE, 0.25, 0.5, 1.0, SEND_ALL]) | st.floats(0, 1.5)
EXIT_MS = ((9.0, 11.0), (20.0, 22.0, 24.0), (40.0,))


def walk(image: tuple[float, ...], threshold: float) -> int:
    """The exit of one image, as the runtime finds it: router after router."""
    for index, value in enumerate(image):
        if not route(np.array([value], np.float32), threshold)[0]:
            return index
    return len(image)


@relaxed
@given(CASCADES, THRESHOLD)
def test_exits_are_those_that_the_runtime_takes(easiness, threshold) -> None:
    expected = [walk(image, threshold) for image in easiness.T]
    assert exits_at(easiness, threshold).tolist() == expected
    shares = exit_shares_at(easiness, threshold)
    assert shares.tolist() == [expected.count(i) / len(expected) for i in range(len(shares))]
    assert hard_fraction_at(easiness, threshold) == shares[-1]


@relaxed
@given(CASCADES, THRESHOLD)
def test_the_shared_easiness_says_who_reaches_the_last_exit(easiness, threshold) -> None:
    reaches = shared_easiness(easiness.astype(np.float32)).astype(np.float32) < np.float32(
        threshold
    )
    always = np.isnan(easiness).all(axis=0)  # also at threshold 0
    assert ((exits_at(easiness, threshold) == len(easiness)) == (reaches | always)).all()


@relaxed
@given(CASCADES, st.lists(THRESHOLD, max_size=5))
def test_shares_along_many_thresholds_are_those_at_each(easiness, thresholds) -> None:
    along = exit_shares_along(easiness, thresholds)
    assert along.shape == (len(thresholds), len(easiness) + 1)
    for row, threshold in zip(along, thresholds, strict=True):
        np.testing.assert_allclose(row, exit_shares_at(easiness, threshold), atol=1e-12)


@relaxed
@given(CASCADES, THRESHOLD)
def test_distinct_thresholds_make_every_choice_there_is(easiness, threshold) -> None:
    choices = {tuple(exits_at(easiness, value)) for value in distinct_thresholds(easiness)}
    assert tuple(exits_at(easiness, threshold)) in choices


@relaxed
@given(CASCADES)
def test_send_none_and_send_all_do_so(easiness) -> None:
    last = len(easiness)
    nan = np.isnan(easiness).all(axis=0)
    assert ((exits_at(easiness, SEND_NONE) == last) == nan).all()
    assert (exits_at(easiness, SEND_ALL) == last).all()


@relaxed
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_percentiles_are_numpys(values) -> None:
    percentiles = np.arange(0, 101, 5)
    found = percentile_thresholds(values, percentiles)
    np.testing.assert_array_equal(found, np.percentile(np.float64(values), percentiles))


@pytest.mark.parametrize("count", [2, 7, 100, 1001])
def test_a_percentile_sends_that_share_of_different_images_on(count) -> None:
    easiness = np.random.default_rng(count).permutation(np.linspace(0.01, 0.99, count))
    for percent in range(0, 101, 7):
        threshold = float(percentile_thresholds(easiness, percent))
        assert abs(hard_fraction_at(easiness, threshold) - percent / 100) <= 1 / count


def test_nan_counts_as_the_least_easy_and_never_makes_a_threshold_negative() -> None:
    easiness = [math.nan, math.nan, 0.4, 0.8]
    assert shared_easiness(easiness).tolist() == [-1, -1, 0.4, 0.8]
    assert percentile_thresholds(easiness, [0, 25, 100]).tolist() == [0, 0, 0.8]
    assert hard_fraction_at(easiness, SEND_NONE) == 0.5
    assert percentile_thresholds([math.nan] * 3, 50) == 0


def test_a_single_image_is_enough() -> None:
    assert percentile_thresholds([0.3], [0, 50, 100]).tolist() == [0.3, 0.3, 0.3]
    assert hard_fraction_at([0.3], 0.3) == 0
    assert hard_fraction_at([0.3], SEND_ALL) == 1


def test_the_mean_weighs_each_exits_own() -> None:
    assert mean_ms([1, 0, 0], EXIT_MS) == 10
    assert mean_ms([0.5, 0.25, 0.25], EXIT_MS) == pytest.approx(5 + 5.5 + 10)


def test_a_percentile_of_a_mixture_is_that_of_many_images() -> None:
    shares = [0.6, 0.3, 0.1]
    images = np.concatenate(
        [np.repeat(ms, round(600 * s / len(ms))) for s, ms in zip(shares, EXIT_MS, strict=True)]
    )
    for percentile in (1, 29, 31, 50, 61, 89, 91, 99, 100):
        expected = np.sort(images)[math.ceil(percentile / 100 * len(images)) - 1]
        assert percentile_ms(shares, EXIT_MS, percentile) == expected


def test_an_exit_that_nobody_takes_does_not_count_in_a_percentile() -> None:
    assert percentile_ms([1, 0, 0], EXIT_MS, 100) == 11
    assert percentile_ms([0, 0, 1], EXIT_MS, 1) == 40
    assert percentile_ms([0.95, 0, 0.05], EXIT_MS, 95) == 11
    assert percentile_ms([0.94, 0, 0.06], EXIT_MS, 95) == 40
    assert percentile_ms([0.94, 0, 0.0599], EXIT_MS, 100) == 40  # shares that were rounded
