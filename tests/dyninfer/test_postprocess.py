from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import InputError, Postprocess
from dyninfer.postprocess import MAX_CANDIDATES, nms, pairwise_iou
from tests import support


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def greedy(boxes: np.ndarray, classes: np.ndarray, iou: float, limit: int) -> list[int]:
    kept: list[int] = []
    for index in range(len(boxes)):
        if all(
            classes[index] != classes[other]
            or overlap(boxes[index].astype(float), boxes[other].astype(float)) <= iou
            for other in kept
        ):
            kept.append(index)
    return kept[:limit]


def candidates(
    count: int, seed: int, *, classes: int, spread: float, largest: float
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    corner = generator.uniform(-spread, spread, (count, 2))
    size = generator.uniform(largest / 20, largest, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return boxes, generator.integers(0, classes, count)


def test_no_candidates_give_no_detections() -> None:
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, int), 0.5, 10)
    assert kept.shape == (0,)
    boxes, confidences, classes = Postprocess()(
        np.empty((0, 4), np.float32), np.empty((0, 3), np.float32)
    )
    assert (boxes.shape, confidences.shape, classes.shape) == ((0, 4), (0,), (0,))


def test_one_candidate_stays() -> None:
    box = np.array([[-5, -5, 5, 5]], np.float32)
    assert nms(box, np.array([2]), 0.5, 10).tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    seed=st.integers(0, 2**32),
    classes=st.integers(1, 5),
    spread=st.sampled_from([0.0, 20.0, 200.0, 2000.0]),
    iou=st.sampled_from([0.0, 0.1, 0.45, 0.65, 0.9]),
    limit=st.sampled_from([1, 7, 300]),
)
def test_nms_equals_the_greedy_definition(count, seed, classes, spread, iou, limit) -> None:
    boxes, ids = candidates(count, seed, classes=classes, spread=spread, largest=60)
    found = nms(boxes, ids, iou, limit)
    assert found.tolist() == greedy(boxes, ids, iou, limit)


@pytest.mark.parametrize("count", [511, 512, 513, 1024, 1700])
@pytest.mark.parametrize("spread", [30.0, 300.0])
def test_blocks_do_not_change_the_result(count, spread) -> None:
    boxes, ids = candidates(count, count, classes=3, spread=spread, largest=50)
    expected = greedy(boxes, ids, 0.5, count)
    assert 3 <= len(expected) < count
    assert nms(boxes, ids, 0.5, count).tolist() == expected
    assert nms(boxes, ids, 0.5, 5).tolist() == expected[:5]


def test_far_apart_coordinates_keep_their_precision() -> None:
    boxes = np.array([[0, 0, 10, 10], [40, 0, 50, 10], [-1e7, 0, -1e7 + 8, 8]], np.float32)
    kept = nms(boxes, np.zeros(3, int), 0.5, 10)
    assert kept.tolist() == [0, 1, 2]


def test_boxes_without_an_area_are_no_detections_and_suppress_nothing() -> None:
    boxes = np.array([[10, 10, 10, 10], [90, 90, 95, 90], [0, 0, 20, 20]], np.float32)
    found, _, _ = Postprocess()(boxes, np.array([[0.9], [0.8], [0.7]], np.float32))
    assert found.tolist() == [[0, 0, 20, 20]]


def test_equal_confidences_keep_the_order_of_the_anchors() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    scores = np.full((3, 1), 0.5, np.float32)
    found, confidences, classes = Postprocess()(boxes, scores)
    np.testing.assert_array_equal(found, boxes[[0, 2]])
    assert confidences.tolist() == [0.5, 0.5]
    assert classes.tolist() == [0, 0]


def test_confidence_must_be_above_and_best_class_or_all_labels() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    scores = np.array([[0.25, 0.2, 0.1], [0.3, 0.9, 0.26]], np.float32)
    _, confidences, classes = Postprocess(confidence=0.25)(boxes, scores)
    assert classes.tolist() == [1]
    np.testing.assert_array_equal(confidences, scores[1, [1]])
    found, confidences, classes = Postprocess(confidence=0.25, several_labels=True)(boxes, scores)
    assert classes.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(confidences, scores[1, [1, 0, 2]])
    np.testing.assert_array_equal(found, boxes[[1, 1, 1]])


def test_at_most_30000_candidates_the_best_ones_are_considered() -> None:
    count = MAX_CANDIDATES + 500
    boxes = np.zeros((count, 4), np.float32)
    boxes[:, 0] = np.arange(count) * 4
    boxes[:, 2:] = boxes[:, :2] + 2
    scores = np.linspace(0.3, 0.9, count, dtype=np.float32)[:, None]
    found, _, _ = Postprocess(max_detections=3)(boxes, scores)
    np.testing.assert_array_equal(found, boxes[: count - 4 : -1])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_boxes_and_scores_are_dropped(broken) -> None:
    boxes = np.array([[0, 0, broken, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.1], [np.nan, np.nan]], np.float32)
    found, _, classes = Postprocess()(boxes, scores)
    np.testing.assert_array_equal(found, boxes[[1]])
    assert classes.tolist() == [0]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), several=st.booleans())
def test_results_do_not_depend_on_the_order_of_the_anchors(seed, several) -> None:
    generator = np.random.default_rng(seed)
    boxes, _ = candidates(80, seed, classes=1, spread=60, largest=40)
    scores = generator.random((80, 3), np.float32)
    order = generator.permutation(80)
    options = Postprocess(several_labels=several)
    for a, b in zip(options(boxes, scores), options(boxes[order], scores[order]), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.integers(0, 2**32))
def test_overlaps_equal_their_definition(seed) -> None:
    a, _ = candidates(6, seed, classes=1, spread=20, largest=30)
    b, _ = candidates(5, seed + 1, classes=1, spread=20, largest=30)
    a[0] = b[0]
    expected = [[overlap(x.astype(float), y.astype(float)) for y in b] for x in a]
    np.testing.assert_allclose(pairwise_iou(a, b), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"confidence": -0.1}, "confidence"),
        ({"confidence": 1.1}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"iou": 2}, "iou"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_options_outside_their_range_are_refused(options, name) -> None:
    with support.refuses(InputError, name):
        Postprocess(**options)
