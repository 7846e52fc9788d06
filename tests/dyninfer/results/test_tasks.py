from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import (
    BrokenOutputError,
    Classification,
    Detections,
    ImageSpec,
    InputError,
    Postprocess,
    TopK,
)
from dyninfer.results.answers import FeatureMaps, NoOptions
from dyninfer.results.tasks import TASKS, check_options, count_matches, disagreement
from tests import support

PLACED = ImageSpec(8, 8).place(16, 16)
relaxed = settings(deadline=None)
BOX = (0.0, 0.0, 10.0, 10.0)
BOXES = st.sampled_from([BOX, (1, 0, 11, 10), (4, 0, 14, 10), (50, 50, 60, 60), (0, 0, 0, 0)])
FOUND = st.lists(st.tuples(BOXES, st.sampled_from([0.3, 0.6, 0.9]), st.integers(0, 1)), max_size=6)


def detections(*found: tuple[tuple[float, ...], float, int]) -> Detections:
    return Detections(
        boxes_xyxy=np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        confidences=np.array([confidence for _, confidence, _ in found], np.float32),
        class_ids=np.array([class_id for _, _, class_id in found], np.int64),
        class_names=tuple(str(class_id) for _, _, class_id in found),
    )


def shifted(by: float) -> tuple[float, ...]:
    return (by, 0.0, 10.0 + by, 10.0)


def test_nothing_agrees_with_nothing_and_with_nothing_else() -> None:
    one = detections((BOX, 0.9, 0))
    assert disagreement(detections(), detections()) == 0
    assert disagreement(one, detections()) == 1
    assert disagreement(detections(), one) == 1


def test_class_and_overlap_decide_and_confidence_does_not() -> None:
    reference = detections((BOX, 0.9, 0))
    assert disagreement(detections((BOX, 0.1, 0)), reference) == 0
    assert disagreement(detections((BOX, 0.9, 1)), reference) == 1
    assert disagreement(detections((shifted(3), 0.9, 0)), reference) == 0  # IoU 7 / 13
    assert disagreement(detections((shifted(4), 0.9, 0)), reference) == 1  # IoU 6 / 14


def test_an_overlap_of_exactly_the_limit_counts() -> None:
    half = detections(((0.0, 0.0, 10.0, 5.0), 0.9, 0))
    assert count_matches(half, detections((BOX, 0.9, 0)), iou=0.5) == 1


def test_a_reference_is_found_once_and_the_surest_is_first() -> None:
    reference = detections((BOX, 0.9, 0), (shifted(3), 0.8, 0))
    twice = detections((BOX, 0.9, 0), (BOX, 0.8, 0), (BOX, 0.7, 0))
    # the second takes the other reference, which it overlaps by 7 / 13; none is left for the third
    assert count_matches(twice, reference) == 2
    assert disagreement(twice, reference) == pytest.approx(1 - 2 * 2 / 5)
    # the surer one takes the reference that both overlap
    pair = detections((shifted(3), 0.5, 0), (BOX, 0.9, 0))
    assert count_matches(pair, detections((BOX, 0.9, 0))) == 1


def test_it_is_one_minus_f1() -> None:
    found = detections((BOX, 0.9, 0), ((50.0, 50.0, 60.0, 60.0), 0.8, 0))
    reference = detections((BOX, 0.9, 0), ((80.0, 80.0, 90.0, 90.0), 0.8, 0), (BOX, 0.7, 1))
    precision, recall = 1 / 2, 1 / 3
    expected = 1 - 2 * precision * recall / (precision + recall)
    assert disagreement(found, reference) == pytest.approx(expected)


@relaxed
@given(FOUND, FOUND)
def test_it_is_a_loss_from_0_to_1(found, reference) -> None:
    loss = disagreement(detections(*found), detections(*reference))
    assert 0 <= loss <= 1
    assert count_matches(detections(*found), detections(*reference)) <= min(
        len(found), len(reference)
    )


@relaxed
@given(FOUND)
def test_detections_agree_with_themselves_unless_a_box_has_no_area(found) -> None:
    solid = [one for one in found if one[0] != (0, 0, 0, 0)]
    assert disagreement(detections(*solid), detections(*solid)) == 0


@relaxed
@given(FOUND, FOUND)
def test_nothing_given_is_changed(found, reference) -> None:
    first, second = detections(*found), detections(*reference)
    before = first.boxes_xyxy.copy(), second.boxes_xyxy.copy()
    disagreement(first, second)
    np.testing.assert_array_equal(first.boxes_xyxy, before[0])
    np.testing.assert_array_equal(second.boxes_xyxy, before[1])


def test_every_task_answers_with_what_it_was_told() -> None:
    detect, classify = TASKS["detect"], TASKS["classify"]
    boxes = {
        "boxes_xyxy": np.array([[0, 0, 4, 4]], np.float32),
        "class_scores": np.array([[0.25, 0.75]], np.float32),
    }
    took = {"easiness": 0.5, "exit_index": 1, "timings_ms": {"body": 1.0}}
    found = detect.answer(boxes, PLACED, detect.defaults, ("left", "right"), **took)
    assert isinstance(found, Detections)
    assert found.boxes_xyxy.tolist() == [[0, 0, 8, 8]]
    assert found.class_names == ("right",)
    logits = {"logits": np.array([0, 3, 1], np.float32)}
    said = classify.answer(logits, PLACED, TopK(2), ("red", "green", "blue"), **took)
    assert isinstance(said, Classification)
    assert said.class_names == ("green", "blue")
    for answer in (found, said):
        assert (answer.easiness, answer.exit_index, answer.degraded) == (0.5, 1, False)
        assert answer.timings_ms == {"body": 1.0}


def test_two_classifications_agree_where_they_name_the_same_class_first() -> None:
    def named(*ids: int) -> Classification:
        return Classification(
            np.array(ids), np.full(len(ids), 0.5, np.float32), tuple("ab"[: len(ids)])
        )

    loss = TASKS["classify"].loss
    assert loss(named(1, 0), named(1, 2)) == 0
    assert loss(named(0, 1), named(1, 0)) == 1


def test_options_of_another_task_are_refused() -> None:
    check_options(TASKS["detect"], Postprocess(), "mine")
    with support.refuses(InputError, "TopK", "mine takes options=dyninfer.Postprocess"):
        check_options(TASKS["detect"], TopK(), "mine")
    with support.refuses(InputError, "Postprocess", "mine takes options=dyninfer.TopK"):
        check_options(TASKS["classify"], Postprocess(), "mine")


def test_options_in_a_dict_are_refused_with_the_line_to_write() -> None:
    with support.refuses(InputError, "options=dyninfer.Postprocess(confidence=0.5, iou=0.6)"):
        check_options(TASKS["detect"], {"confidence": 0.5, "iou": 0.6}, "mine")
    with support.refuses(InputError, "{'conf': 0.5}", "Postprocess(confidence=0.25, iou=0.45, max"):
        check_options(TASKS["detect"], {"conf": 0.5}, "mine")
    with support.refuses(InputError, "options=dyninfer.TopK(count=3)"):
        check_options(TASKS["classify"], {"count": 3}, "mine")


def test_what_is_cut_off_at_the_edge_agrees_with_itself() -> None:
    edge = detections(((8.0, 1.0, 8.0, 3.0), 0.9, 0))
    near = detections(((8.0, 1.4, 8.0, 3.4), 0.9, 0))
    just = detections(((8.0, 1.5, 8.0, 3.5), 0.9, 0))
    assert disagreement(edge, edge) == disagreement(near, edge) == disagreement(just, edge) == 0
    for other in ((8.0, 1.6, 8.0, 3.6), (0.0, 1.0, 0.0, 3.0), (7.9, 1.0, 8.1, 3.0)):
        assert disagreement(detections((other, 0.9, 0)), edge) == 1
    assert disagreement(detections(((8.0, 1.0, 8.0, 3.0), 0.9, 1)), edge) == 1


TOOK = {"easiness": None, "exit_index": 1, "timings_ms": {}}
MAPS = ("c2", "c3", "c4", "c5")


def maps(**values: list[float]) -> FeatureMaps:
    """Maps of ones but for those that are given."""
    given = {name: np.array(values.get(name, [1.0, 1.0]), np.float32) for name in MAPS}
    return FeatureMaps({name: array.reshape(1, 1, -1) for name, array in given.items()})


@pytest.mark.parametrize(
    ("found", "reference", "loss"),
    [
        ({}, {}, 0),
        ({"c2": [3.0, 5.0]}, {"c2": [3.0, 4.0]}, 1 / 5),
        ({"c2": [3.0, 5.0], "c5": [6.0, 10.0]}, {"c2": [3.0, 4.0], "c5": [6.0, 8.0]}, 1 / 5),
        ({"c3": [2.0, 1.0], "c5": [3.0, 5.0]}, {"c5": [3.0, 4.0]}, 0.5**0.5),
        ({"c4": [9.0, 9.0]}, {}, 1),  # no more than all
        ({"c4": [0.0, 0.0]}, {"c4": [0.0, 0.0]}, 0),
        ({"c4": [0.0, 1e-6]}, {"c4": [0.0, 0.0]}, 1),
    ],
)
def test_maps_differ_by_the_largest_of_their_relative_differences(found, reference, loss) -> None:
    assert TASKS["features"].loss(maps(**found), maps(**reference)) == pytest.approx(loss)


def test_maps_are_copies_and_broken_if_one_value_is() -> None:
    outputs = {name: np.ones((1, 2, 2), np.float32) for name in MAPS}
    task = TASKS["features"]
    found = task.answer(outputs, PLACED, NoOptions(), (), **TOOK)
    outputs["c3"][0, 0, 0] = np.nan
    assert isinstance(found, FeatureMaps)
    assert np.isfinite(found.maps["c3"]).all()
    with support.refuses(BrokenOutputError, "exit 1 gave broken outputs: 1 of 4 values of c3"):
        task.answer(outputs, PLACED, NoOptions(), (), **TOOK)


def detected(boxes, scores, confidence: float = 0.25) -> tuple[int, list[str]]:
    """How many are found, and what is told to be broken."""
    told: list[str] = []
    outputs = {
        "boxes_xyxy": np.array(boxes, np.float32),
        "class_scores": np.array(scores, np.float32),
    }
    options = Postprocess(confidence=confidence)
    task, names = TASKS["detect"], ("left", "right")
    return len(task.answer(outputs, PLACED, options, names, told.append, **TOOK)), told


GOOD, FLAT, FAR = [0.0, 0, 4, 4], [4.0, 4, 4, 4], [0.0, 0, 4, 1e6]
SURE, UNSURE = [0.9, 0.1], [0.1, 0.1]


@pytest.mark.parametrize(
    ("boxes", "scores", "found", "told"),
    [
        ([GOOD], [SURE], 1, []),
        ([GOOD], [UNSURE], 0, []),
        ([FLAT, GOOD], [SURE, UNSURE], 0, []),  # of which another has an area
        ([FLAT, GOOD], [SURE, SURE], 1, []),
        ([FAR, GOOD], [SURE, SURE], 1, ["1 coordinates of boxes are not finite"]),
        ([FAR, [np.nan] * 4, GOOD], [SURE] * 3, 1, ["5 coordinates of boxes are not finite"]),
        ([GOOD, GOOD], [SURE, [1.5, 0]], 1, ["1 scores are not numbers from 0 to 1"]),
        ([GOOD], [[-0.0009, -0.0009]], 0, []),  # as rounding leaves it
        ([GOOD, GOOD], [SURE, [-0.5, 0]], 1, []),
    ],
)
def test_what_is_broken_is_told_beside_what_is_found(boxes, scores, found, told) -> None:
    assert detected(boxes, scores) == (found, told)


def test_a_head_that_looks_at_no_place_finds_nothing_and_is_not_broken() -> None:
    assert detected(np.zeros((0, 4)), np.zeros((0, 2))) == (0, [])


@pytest.mark.parametrize(
    ("boxes", "scores", "told"),
    [
        *(([box], [SURE], "no box has an area") for box in (FLAT, [0.0, 0, 4, 0], [4.0, 4, 0, 0])),
        ([FAR], [SURE], "1 coordinates of boxes are not finite"),
        ([GOOD], [[np.nan, 0]], "1 scores are not numbers"),
        ([GOOD], [[-0.5, 0]], "scores go down to -0.5"),
        ([GOOD], [[-0.0011, 0]], "scores go down to -0.0011"),
    ],
)
def test_where_nothing_is_found_it_is_an_error(boxes, scores, told) -> None:
    with support.refuses(BrokenOutputError, f"exit 1 gave broken outputs: {told}"):
        detected(boxes, scores)


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        ((2, 4), (2, 3)),
        ((2, 4), (3, 2)),
        ((2, 4), (1, 2)),
        ((2, 4), (2, 1)),
        ((2, 5), (2, 2)),
        ((2,), (2, 2)),
    ],
)
def test_outputs_of_other_shapes_are_broken(boxes, scores) -> None:
    with support.refuses(BrokenOutputError, "exit 1 gave boxes", "expected (K, 4) with (K, 2)"):
        detected(np.zeros(boxes), np.zeros(scores))
    names = ("left", "right")
    for shape in ((3,), (1, 2)):
        logits = {"logits": np.zeros(shape, np.float32)}
        with support.refuses(BrokenOutputError, "one for each of 2 classes"):
            TASKS["classify"].answer(logits, PLACED, TopK(), names, **TOOK)


@pytest.mark.parametrize(("logit", "broken"), [(999_999.0, 0), (1e6, 1), (-1e6, 1), (np.nan, 1)])
def test_a_logit_is_below_a_million(logit: float, broken: int) -> None:
    logits = {"logits": np.array([0, logit], np.float32)}
    if broken:
        with support.refuses(BrokenOutputError, "1 of 2 logits are not finite"):
            TASKS["classify"].answer(logits, PLACED, TopK(), ("left", "right"), **TOOK)
    else:
        assert len(TASKS["classify"].answer(logits, PLACED, TopK(), ("a", "b"), **TOOK)) == 2
