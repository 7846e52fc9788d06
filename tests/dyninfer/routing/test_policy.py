from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer import AlwaysEasy, AlwaysHard, PolicyError, Threshold, route
from tests import support

EASINESS = st.floats(0, 1, width=32)
BATCH = st.lists(EASINESS | st.just(math.nan), max_size=20)


def array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_an_empty_batch_has_an_empty_mask() -> None:
    for mask in (
        route(array([]), 0.5),
        Threshold(0.5).continues(array([]), 0),
        AlwaysEasy().continues(array([]), 0),
        AlwaysHard().continues(array([]), 0),
    ):
        assert mask.shape == (0,)
        assert mask.dtype == np.bool_


def test_the_comparison_is_strict_and_nan_continues() -> None:
    easiness = array([0.25, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.75, math.nan])
    assert route(easiness, 0.5).tolist() == [True, False, True, False, True]


@given(BATCH, EASINESS)
def test_every_image_is_judged_alone(easiness, threshold) -> None:
    expected = [math.isnan(value) or value < threshold for value in easiness]
    assert route(array(easiness), threshold).tolist() == expected
    assert Threshold(threshold).continues(array(easiness), 0).tolist() == expected


@given(BATCH, EASINESS, EASINESS)
def test_a_higher_threshold_never_sends_fewer_images_on(easiness, low, high) -> None:
    low, high = sorted((low, high))
    assert not (route(array(easiness), low) & ~route(array(easiness), high)).any()


@given(st.lists(EASINESS, max_size=20))
def test_zero_keeps_every_image_and_above_one_none(easiness) -> None:
    assert not route(array(easiness), 0.0).any()
    assert route(array(easiness), 1.0001).all()


@given(BATCH)
def test_always_policies_do_not_read_the_easiness(easiness) -> None:
    assert not AlwaysEasy().continues(array(easiness), 0).any()
    assert AlwaysHard().continues(array(easiness), 0).all()
    assert not AlwaysEasy().needs_router
    assert not AlwaysHard().needs_router
    assert Threshold(0.0).needs_router


def test_routing_changes_nothing_it_was_given() -> None:
    easiness = array([0.1, math.nan, 0.9])
    before = easiness.copy()
    Threshold(0.5).continues(easiness, 0)
    np.testing.assert_array_equal(easiness, before)


def test_a_sequence_gives_every_exit_its_own_threshold() -> None:
    policy = Threshold((0.2, 0.8))
    easiness = array([0.5])
    assert policy.continues(easiness, 0).tolist() == [False]
    assert policy.continues(easiness, 1).tolist() == [True]


def test_a_sequence_must_fit_the_number_of_exits() -> None:
    Threshold((0.2, 0.8)).check_exits(3)
    Threshold(0.2).check_exits(3)
    with support.refuses(PolicyError, "2 thresholds", "expected 1"):
        Threshold((0.2, 0.8)).check_exits(2)
    with support.refuses(PolicyError, "1 thresholds", "expected 2"):
        Threshold([0.2]).check_exits(3)


@pytest.mark.parametrize(
    "value", [math.nan, -0.1, (), (0.5, math.nan), [0.1, -1], "0.5", None, [None]]
)
def test_values_that_mean_nothing_are_refused(value) -> None:
    with support.refuses(PolicyError, "threshold"):
        Threshold(value)


def test_a_list_that_changes_later_changes_no_policy() -> None:
    values = [0.2, 0.4]
    policy = Threshold(values)
    values.clear()
    assert policy == Threshold((0.2, 0.4))
    assert hash(policy) == hash(Threshold((0.2, 0.4)))


def test_policies_are_values() -> None:
    assert Threshold(0.5) == Threshold(0.5)
    assert Threshold(0.5) != Threshold(0.6)
    assert AlwaysEasy() == AlwaysEasy()
    with pytest.raises(AttributeError):
        Threshold(0.5).value = 0.6  # type: ignore[misc]
