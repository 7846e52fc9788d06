from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dyninfer import AlwaysEasy, AlwaysHard, Chosen, Forced, LeaveAt, PolicyError, Threshold, route
from dyninfer.benchmarks.latency.scenarios import ForcedWay
from dyninfer.routing.policy import (
    Blind,
    DecisionPoint,
    count_ways,
    decider_of_one,
    default_policy,
    hardest_way,
)
from tests import support
from tests.support import at_exit, go_on

EASINESS = st.floats(0, 1, width=32)
BATCH = st.lists(EASINESS | st.just(math.nan), max_size=20)
TWO_EXITS = (at_exit(0, 0),)
THREE_EXITS = (at_exit(0, 0, 3), at_exit(1, 0, 3))


def array(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def at_chooser(count: int, branches: int = 3, macs: tuple[int, ...] = ()) -> DecisionPoint:
    ways = tuple(frozenset({branch}) for branch in range(branches))
    return DecisionPoint(0, "choice_scores", ways, np.arange(count), macs=macs)


def without_router() -> DecisionPoint:
    return DecisionPoint(0, None, (frozenset({0}), frozenset({1})))


def test_an_empty_batch_has_no_outcomes() -> None:
    assert route(array([]), 0.5).shape == (0,)
    for policy in (Threshold(0.5), AlwaysEasy(), AlwaysHard(), LeaveAt(1), Forced([])):
        assert policy.decide(array([]), at_exit(0, 0)).shape == (0,)
    assert Chosen().decide(np.zeros((0, 3), np.float32), at_chooser(0)).shape == (0,)


def test_the_comparison_is_strict_and_nan_continues() -> None:
    easiness = array([0.25, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.75, math.nan])
    assert route(easiness, 0.5).tolist() == [True, False, True, False, True]


@given(BATCH, EASINESS)
def test_every_image_is_judged_alone(easiness, threshold) -> None:
    expected = [math.isnan(value) or value < threshold for value in easiness]
    assert route(array(easiness), threshold).tolist() == expected
    assert go_on(Threshold(threshold), array(easiness)).tolist() == expected


@given(EASINESS | st.just(math.nan), st.floats(0))
@example(float(np.float32(0.7)), 0.7)  # which float32 rounds down: both are equal there
@example(1.0, 1e300)
def test_a_single_image_is_judged_as_in_a_batch(easiness, threshold) -> None:
    same = (AlwaysEasy(), AlwaysHard(), LeaveAt(1), LeaveAt(2), ForcedWay(1), ForcedWay(2))
    for policy in (Threshold(threshold), Threshold([0.0, threshold]), *same):
        decided = policy.decide(array([easiness]), at_exit(1, 1, 3))
        decide_one = decider_of_one(policy)
        assert decide_one is not None
        assert [decide_one(easiness, at_exit(1, 0, 3))] == decided.tolist()


def test_at_a_chooser_the_cheapest_or_the_dearest_branch_is_taken() -> None:
    point = at_chooser(2, macs=(5, 9, 1))
    for policy, branch in ((AlwaysEasy(), 2), (AlwaysHard(), 1), (LeaveAt(0), 0)):
        assert policy.decide(np.zeros((2, 3), np.float32), point).tolist() == [branch, branch]
        assert decider_of_one(policy)(math.nan, point) == branch


def test_of_a_class_that_derives_from_another_nothing_is_known() -> None:
    class Contrary(Threshold):
        def decide(self, easiness, point):
            return 1 - super().decide(easiness, point)

    class Own:
        def decide_one(self, easiness):
            return int(easiness < 0.5)

        def decide(self, easiness, _point):
            return np.array([self.decide_one(value) for value in easiness])

    assert decider_of_one(Contrary(0.5)) is None
    assert decider_of_one(Own()) is None  # which means something else by that name
    assert decider_of_one(Chosen()) is None


def test_thresholds_beyond_float32_let_no_image_leave() -> None:
    """Without the warning of an overflow with every batch."""
    for beyond in (3.5e38, 1e300, math.inf):
        policy = Threshold(beyond)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert policy.decide(array([0.0, 1.0]), at_exit(0, 0)).tolist() == [1, 1]
        assert policy == Threshold(beyond)
        assert repr(policy) == f"Threshold(value={beyond!r})"


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
    assert not go_on(AlwaysEasy(), array(easiness)).any()
    assert go_on(AlwaysHard(), array(easiness)).all()
    for policy in (AlwaysEasy(), AlwaysHard(), LeaveAt(0), Forced([0])):
        assert isinstance(policy, Blind)
    for policy in (Threshold(0.0), Chosen()):
        assert not isinstance(policy, Blind)


@pytest.mark.parametrize(
    "policy",
    [Threshold(0.5), Threshold((0.5,)), AlwaysEasy(), AlwaysHard(), LeaveAt(1), Forced([1, 0, 1])],
)
def test_routing_changes_nothing_it_was_given(policy) -> None:
    easiness, point = array([0.1, math.nan, 0.9]), at_exit(0, 3)
    before, images = easiness.copy(), point.images.copy()
    policy.decide(easiness, point)
    np.testing.assert_array_equal(easiness, before)
    np.testing.assert_array_equal(point.images, images)


def test_choosing_changes_no_score() -> None:
    scores = np.array([[0, 2, 1], [5, math.nan, 0]], np.float32)
    before = scores.copy()
    Chosen().decide(scores, at_chooser(2))
    np.testing.assert_array_equal(scores, before)


def test_a_sequence_gives_every_exit_its_own_threshold() -> None:
    policy = Threshold((0.2, 0.8))
    easiness = array([0.5])
    assert go_on(policy, easiness, 0, 3).tolist() == [False]
    assert go_on(policy, easiness, 1, 3).tolist() == [True]


def test_a_sequence_must_fit_the_number_of_exits() -> None:
    Threshold((0.2, 0.8)).check(THREE_EXITS, None)
    Threshold(0.2).check(THREE_EXITS, None)
    with support.refuses(PolicyError, "2 thresholds", "expected 1: one for each of the 2 exits"):
        Threshold((0.2, 0.8)).check(TWO_EXITS, None)
    with support.refuses(PolicyError, "1 threshold", "expected 2: one for each of the 3 exits"):
        Threshold([0.2]).check(THREE_EXITS, None)


@pytest.mark.parametrize(
    ("policy", "points", "parts"),
    [
        (Threshold(0.5), (), ("Threshold", "one way")),
        (Threshold(0.5), (without_router(),), ("no router", "AlwaysHard")),
        (Threshold(0.5), (at_chooser(0),), ("choice_scores", "Chosen")),
        (Chosen(), TWO_EXITS, ("easiness", "Threshold")),
        (Chosen(), (), ("Chosen", "one way")),
        (LeaveAt(2), TWO_EXITS, ("no exit 2", "0 to 1")),
        (LeaveAt(1), (), ("no exit 1", "0 to 0")),
        (Forced([0, 3]), (at_chooser(0),), ("no exit 3", "0 to 2")),
        (Forced([0, 4, 3]), (at_chooser(0),), ("no exit 4", "0 to 2")),
    ],
)
def test_a_policy_is_refused_where_it_does_not_fit(policy, points, parts) -> None:
    with support.refuses(PolicyError, *parts):
        policy.check(points, None)


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
    assert Forced([0, 1]) == Forced((0, 1))
    with pytest.raises(AttributeError):
        Threshold(0.5).value = 0.6  # type: ignore[misc]


def test_a_chooser_s_largest_score_wins_the_first_of_equals_and_nan_is_hard() -> None:
    scores = np.array([[0, 2, 1], [3, 3, 0], [5, math.nan, 0], [0, 0, 0]], np.float32)
    assert Chosen().decide(scores, at_chooser(4)).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("macs", "easy", "hard", "tied"),
    [
        ((30, 20, 10), 2, 0, [1, 2, 2]),
        ((20, 30, 10), 2, 1, [0, 2, 2]),
        ((5, 5, 5), 0, 2, [0, 0, 0]),
        ((7, 9, 7), 0, 1, [0, 0, 0]),
    ],
)
def test_branches_stand_in_any_order_and_their_cost_says_which_is_cheap(
    macs, easy, hard, tied
) -> None:
    point = at_chooser(4, macs=macs).of(np.arange(4))
    unread = np.full((4, 3), np.nan, np.float32)
    assert AlwaysEasy().decide(unread, point).tolist() == [easy] * 4
    assert AlwaysHard().decide(unread, point).tolist() == [hard] * 4
    scores = np.array([[3, 3, 0], [3, 0, 3], [1, 1, 1], [5, math.nan, 0]], np.float32)
    assert Chosen().decide(scores, point).tolist() == [*tied, hard]
    assert Chosen().decide(np.eye(3, dtype=np.float32), point).tolist() == [0, 1, 2]


def test_a_cascade_s_first_exit_is_easy_even_where_its_head_is_dear() -> None:
    ways = (frozenset({0}), frozenset({1}))
    point = DecisionPoint(0, "easiness", ways, np.arange(2), macs=(150, 110))
    assert not go_on(AlwaysEasy(), array([0, 1])).any()
    assert AlwaysEasy().decide(array([0, 1]), point).tolist() == [0, 0]
    assert AlwaysHard().decide(array([0, 1]), point).tolist() == [1, 1]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.data())
def test_forced_ways_are_followed_at_every_exit_for_the_images_that_come_there(ways, data) -> None:
    policy = Forced(ways)
    for index in (0, 1):
        here = [n for n, way in enumerate(ways) if way >= index]
        here = data.draw(st.permutations(here))
        outcomes = policy.decide(array([]), at_exit(index, 0, 3).of(np.array(here, np.int64)))
        assert outcomes.tolist() == [int(ways[image] > index) for image in here]
    branches = policy.decide(array([]), at_chooser(len(ways)))
    assert branches.tolist() == ways


@pytest.mark.parametrize("ways", [3, "01", [0.5], [-1], [None], {0: 1}])
def test_forced_ways_that_mean_nothing_are_refused(ways) -> None:
    with support.refuses(PolicyError, "forced ways", "whole number"):
        Forced(ways)


@pytest.mark.parametrize("exit_index", [-1, 0.5, "0", None])
def test_an_exit_that_means_nothing_is_refused(exit_index) -> None:
    with support.refuses(PolicyError, f"an exit is {exit_index!r}", "from 0 up"):
        LeaveAt(exit_index)


def test_forced_ways_are_for_just_the_images_of_the_call() -> None:
    policy = Forced(np.array([0, 1]))
    policy.check(TWO_EXITS, 2)
    for images in (1, 3):
        with support.refuses(PolicyError, "2 images", f"has {images}"):
            policy.check(TWO_EXITS, images)
    with support.refuses(PolicyError, "2 images", "more than 2"):
        policy.decide(array([0.5] * 3), at_exit(0, 3))


def test_ways_are_counted_and_the_default_policy_reads_what_there_is() -> None:
    assert [count_ways(points) for points in ((), TWO_EXITS, THREE_EXITS)] == [1, 2, 3]
    assert count_ways((at_chooser(0, 4),)) == 4
    assert [hardest_way(points) for points in ((), TWO_EXITS, THREE_EXITS)] == [0, 1, 2]
    assert hardest_way((at_chooser(0, 3, (10, 30, 20)),)) == 1
    assert default_policy(TWO_EXITS) == Threshold(0.5)
    assert default_policy((at_chooser(0),)) == Chosen()
    assert default_policy(()) == default_policy((without_router(),)) == AlwaysHard()
