"""The first head may start before the decision: the results are the same, the work is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from tests import support

EASY, MIDDLE, HARD = (0.9, 0.9), (0.1, 0.9), (0.1, 0.1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    path = support.write_three_exits(tmp_path_factory.mktemp("speculative") / "three.dyn")
    with (
        dyninfer.load(path, max_batch=6) as plain,
        dyninfer.load(path, max_batch=6, speculative_head=True) as early,
    ):
        yield plain, early


def infer(detector, kinds) -> list:
    codes = [(*kind, float(row)) for row, kind in enumerate(kinds)]
    images = {"images": support.coded_images(codes), "images_2": support.coded_images(codes, 4)}
    return detector.infer(images)


@settings(deadline=None, max_examples=30)
@given(kinds=st.lists(st.sampled_from([EASY, MIDDLE, HARD]), min_size=1, max_size=14))
def test_the_results_are_those_of_a_head_that_waits(pair, kinds) -> None:
    plain, early = pair
    for a, b in zip(infer(early, kinds), infer(plain, kinds), strict=True):
        assert (a.exit_index, a.easiness) == (b.exit_index, b.easiness)
        for name, array in b.outputs.items():
            np.testing.assert_array_equal(a.outputs[name], array)


def test_the_first_head_sees_all_images_and_later_ones_only_their_own(pair) -> None:
    _, early = pair
    before = {name: engine.row_count for name, engine in early.engines.items()}
    infer(early, [EASY, MIDDLE, HARD, HARD, MIDDLE])
    rows = {name: engine.row_count - before[name] for name, engine in early.engines.items()}
    assert (rows["head_1"], rows["head_2"], rows["body_2"], rows["body_3"]) == (5, 2, 4, 2)


@pytest.mark.parametrize("policy", [dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()])
def test_where_the_route_is_known_nothing_is_guessed(tmp_path, policy) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path, speculative_head=True) as detector:
        detector.policy = policy
        detector.infer({"images": support.coded_images([(0.1, 0, 0), (0.9, 0, 1)])})
        expected = 2 if policy == dyninfer.AlwaysEasy() else 0
        assert detector.engines["head"].row_count == expected


def test_the_time_of_a_head_that_ran_for_all_is_shared_by_all(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path, speculative_head=True) as detector:
        found = detector([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
        assert [result.exit_index for result in found] == [1, 0]
        assert all("head" in result.timings_ms for result in found)
