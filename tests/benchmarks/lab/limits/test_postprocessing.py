from __future__ import annotations

import numpy as np
import pytest

from dyninfer import Postprocess
from dyninfer.benchmarks.lab.limits import postprocessing
from dyninfer.benchmarks.lab.limits.postprocessing import crowded_prediction, head_outputs
from dyninfer.errors import InputError
from tests import support

CONFIDENCES = (0.25, 0.05, 0.01, 0.001)


def test_two_rows_tell_how_ours_compares_with_the_baseline() -> None:
    rows = postprocessing.measure(2)
    assert [row.key for row in rows] == ["postprocessing", "postprocessing-evaluation"]
    for row in rows:
        assert (row.unit, row.limit) == ("ratio", 0.5)
        assert row.measured.rounds == 2
        assert {len(times) for times in row.times_ms.values()} == {2}
        assert "dyninfer" in row.times_ms
        assert row.holds == (row.measured.median <= row.limit)
        assert "kept by both" in row.note


@pytest.mark.parametrize("case", postprocessing.CASES, ids=lambda case: case.key)
@pytest.mark.parametrize("objects", [1, 20])
def test_ours_and_the_baseline_find_the_same_in_other_scenes(case, objects) -> None:
    prediction = crowded_prediction(seed=objects, objects=objects)
    ours = case.options(*head_outputs(prediction))
    assert postprocessing.check_same(ours, postprocessing.offset_nms(prediction, case.options)) > 0


def test_nothing_is_timed_if_the_two_find_something_else() -> None:
    prediction = crowded_prediction(objects=3)
    found = Postprocess()(*head_outputs(prediction))
    fewer = tuple(column[:-1] for column in found)
    with support.refuses(InputError, f"found {len(found[0])}", f"baseline {len(found[0]) - 1}"):
        postprocessing.check_same(found, fewer)


def test_a_scene_is_the_same_every_time_and_has_the_shape_of_a_yolo_head() -> None:
    prediction = crowded_prediction(4, objects=2)
    assert prediction.shape == (1, 25200, 85)
    assert prediction.dtype == np.float32
    np.testing.assert_array_equal(prediction, crowded_prediction(4, objects=2))
    assert (prediction != crowded_prediction(5, objects=2)).any()
    boxes, scores = head_outputs(prediction)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert 0 <= scores.min() <= scores.max() <= 1


def counts(scores: np.ndarray) -> np.ndarray:
    return np.array([np.count_nonzero(scores > confidence) for confidence in CONFIDENCES])


def test_an_object_has_about_as_many_candidates_as_one_of_the_embedded_model() -> None:
    drawn = counts(head_outputs(crowded_prediction(objects=36))[1]) / 36
    np.testing.assert_allclose(drawn, [28, 55, 93, 250], rtol=0.15)
