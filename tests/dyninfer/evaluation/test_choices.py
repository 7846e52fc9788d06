from __future__ import annotations

import numpy as np
import pytest

from dyninfer.evaluation.choices import Spread, lowest, random_choices


def test_nothing_of_nothing_is_marked() -> None:
    assert lowest([], 0.5).shape == (0,)


@pytest.mark.parametrize(("share", "marked"), [(0, 0), (0.25, 1), (0.5, 2), (1, 4)])
def test_the_lowest_share_is_marked(share: float, marked: int) -> None:
    mask = lowest([0.4, 0.1, 0.3, 0.2], share)
    assert mask.sum() == marked
    assert set(np.flatnonzero(mask)) == set([1, 3, 2, 0][:marked])


def test_of_equal_values_the_first_are_marked() -> None:
    assert lowest([0.5] * 4, 0.5).tolist() == [True, True, False, False]


def test_random_choices_mark_as_many_and_are_the_same_every_time() -> None:
    masks = random_choices(10, 0.3, seeds=5)
    assert [mask.sum() for mask in masks] == [3] * 5
    assert len({tuple(mask) for mask in masks}) > 1
    for again, mask in zip(random_choices(10, 0.3, seeds=5), masks, strict=True):
        np.testing.assert_array_equal(again, mask)


def test_a_spread_is_mean_and_deviation() -> None:
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 1.0)
