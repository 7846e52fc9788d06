from __future__ import annotations

import numpy as np
import pytest

from dyninfer import AlwaysEasy, PolicyError
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import InputError
from dyninfer.runtime.decisions import no_signal, only_outcome, signal_of, split
from dyninfer.runtime.plan import plan
from tests import support


@pytest.mark.parametrize("count", [1, 3])
def test_an_easiness_may_miss_its_ends_by_rounding_alone(tmp_path, count: int) -> None:
    segment, *_ = plan(Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest)
    for value, known in ((-0.001, True), (1.001, True), (-0.0011, False), (1.0011, False)):
        values = np.full((count, 1), 0.5, np.float32)
        values[-1] = value
        made = signal_of(segment.decide, count, values)
        assert made.shape == (count,)
        assert np.isnan(made).tolist() == [False] * (count - 1) + [not known]
        assert not np.shares_memory(made, values)
    for wrong in (np.zeros((count, 2), np.float32), np.zeros(count - 1, np.float32)):
        with support.refuses(InputError, "the easiness of", f"expected ({count},)"):
            signal_of(segment.decide, count, wrong)


def test_scores_of_a_chooser_are_a_row_for_each_image(tmp_path) -> None:
    manifest = Bundle.open(support.write_select_detectors(tmp_path / "select.dyn")).manifest
    decide = plan(manifest)[0].decide
    scores = np.array([[5.0, -7.0], [np.nan, 2.0], [0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(signal_of(decide, 3, scores), scores)
    for wrong in (scores[:, :1], np.zeros((3, 3), np.float32)):
        with support.refuses(InputError, "the choice_scores of 3 images", "expected (3, 2)"):
            signal_of(decide, 3, wrong)


def test_where_nothing_is_said_all_is_nan_and_stays_so(tmp_path) -> None:
    cascade = plan(Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest)
    chooser = plan(Bundle.open(support.write_select_detectors(tmp_path / "select.dyn")).manifest)
    for segments, count, shape in ((cascade, 1, (1,)), (cascade, 3, (3,)), (chooser, 3, (3, 2))):
        nothing = no_signal(segments[0].decide, count)
        assert nothing.shape == shape
        assert np.isnan(nothing).all()
        with pytest.raises(ValueError, match="read-only"):
            nothing[0] = 1


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_images_are_split_by_what_was_decided_for_them(dtype) -> None:
    def found(*chosen: int) -> list[tuple[int, list[int] | None]]:
        parts = split(np.array(chosen, dtype), len(chosen), 2, AlwaysEasy())
        return [(outcome, None if w is None else w.tolist()) for outcome, w in parts]

    assert found(0) == found(0, 0) == [(0, None)]
    assert found(1) == found(1, 1, 1) == [(1, None)]
    assert found(1, 0, 1) == [(0, [1]), (1, [0, 2])]
    assert only_outcome(np.array([1], dtype), 2, AlwaysEasy()) == 1


@pytest.mark.parametrize("chosen", [[2], [-1], [0.0], 0, [[0]], [], [0, 0]])
def test_of_one_image_one_outcome_is_wanted(chosen) -> None:
    for check in (only_outcome, lambda c, outcomes, policy: split(c, 1, outcomes, policy)):
        with support.refuses(PolicyError, "every image easy", "for 1 image", "0 to 1"):
            check(np.array(chosen), 2, AlwaysEasy())
