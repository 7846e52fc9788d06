from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import InputError, Postprocess
from dyninfer.results.candidates import best_label, every_label
from dyninfer.results.postprocess import EVALUATION
from tests import support
from tests.dyninfer.results.greedy import candidates, greedy, on_a_grid

LARGEST_SCORE = 1.001


def test_no_candidates_give_no_detections() -> None:
    boxes, confidences, classes = Postprocess()(
        np.empty((0, 4), np.float32), np.empty((0, 3), np.float32)
    )
    assert (boxes.shape, confidences.shape, classes.shape) == ((0, 4), (0,), (0,))


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


@pytest.mark.parametrize(("place", "found"), [(29_999, 2), (30_000, 1)])
def test_the_best_30000_candidates_are_considered_and_no_others(place, found) -> None:
    """All lie on the best one, but for the one at this place."""
    boxes = np.tile(np.array([0, 0, 10, 10], np.float32), (30_500, 1))
    boxes[place] += 50
    scores = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(boxes))
    detections, _, _ = Postprocess()(boxes[order], scores[order])
    assert detections.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]][:found]


def test_what_counts_as_found_where_nothing_is_said_and_in_an_evaluation() -> None:
    assert Postprocess() == Postprocess(0.25, 0.45, 300, several_labels=False)
    assert Postprocess(0.001, 0.65, 300, several_labels=True) == EVALUATION


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
    # all different: of equal ones the first anchor comes first
    scores = (generator.permutation(240).reshape(80, 3) / 240).astype(np.float32)
    order = generator.permutation(80)
    options = Postprocess(several_labels=several)
    for a, b in zip(options(boxes, scores), options(boxes[order], scores[order]), strict=True):
        np.testing.assert_array_equal(a, b)


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


def plain(
    options: Postprocess, boxes: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Postprocessing by its definition."""
    scores = np.where(scores <= LARGEST_SCORE, np.minimum(scores, 1), np.nan).astype(np.float32)
    if options.several_labels:
        anchors, classes = np.nonzero(scores > options.confidence)
    else:
        (anchors,) = np.nonzero(scores.max(axis=1, initial=0) > options.confidence)
        classes = scores[anchors].argmax(axis=1)
    chosen = boxes[anchors]
    usable = (chosen[:, 2:] > chosen[:, :2]).all(axis=1) & np.isfinite(chosen).all(axis=1)
    anchors, classes = anchors[usable], classes[usable]
    order = np.argsort(-scores[anchors, classes], kind="stable")
    anchors, classes = anchors[order], classes[order]
    kept = greedy(boxes[anchors], classes, options.iou, options.max_detections)
    anchors, classes = anchors[kept], classes[kept]
    return boxes[anchors], scores[anchors, classes], classes


def assert_as_defined(options: Postprocess, boxes: np.ndarray, scores: np.ndarray) -> None:
    found = options(boxes, scores)
    for ours, expected in zip(found, plain(options, boxes, scores), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert [array.dtype for array in found] == [np.float32, np.float32, np.int64]


OPTIONS = st.builds(
    Postprocess,
    confidence=st.sampled_from([0.0, 0.001, 0.25, 0.5, 1.0]),
    iou=st.sampled_from([0.0, 0.45, 0.5, 0.65, 1.0]),
    max_detections=st.sampled_from([1, 20, 300]),
    several_labels=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(
    options=OPTIONS,
    anchors=st.integers(0, 150),
    classes=st.sampled_from([1, 3, 8, 10, 80]),
    levels=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 2**32),
)
def test_detections_are_those_of_the_definition(options, anchors, classes, levels, seed) -> None:
    generator = np.random.default_rng(seed)
    boxes, _ = on_a_grid(anchors, seed, classes=1)
    scores = (generator.integers(0, levels, (anchors, classes)) / levels).astype(np.float32)
    scores **= generator.integers(1, 8)
    assert_as_defined(options, boxes, scores)


@settings(max_examples=60, deadline=None)
@given(options=OPTIONS, seed=st.integers(0, 2**32), share=st.sampled_from([0.01, 0.3, 1.0]))
def test_broken_numbers_anywhere_are_those_of_the_definition(options, seed, share) -> None:
    generator = np.random.default_rng(seed)
    boxes, _ = candidates(60, seed, classes=1, spread=60, largest=40)
    scores = generator.random((60, 5), np.float32)
    for array in (boxes, scores):
        spoilt = generator.random(array.shape) < share / 4
        values = [np.nan, np.inf, -np.inf, 0, -1, 1.0005, 7]
        array[spoilt] = generator.choice(values, int(spoilt.sum()))
    assert_as_defined(options, boxes, scores)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("classes", [1, 80, 83])
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.002])
def test_a_large_head_is_scanned_completely(classes, several, share) -> None:
    generator = np.random.default_rng(classes)
    count = 700_001 // classes
    scores = generator.random((count, classes), np.float32) * np.float32(0.2)
    scores[generator.random(scores.shape) < share] = 0.5
    scores[-1, -1] = 0.9
    boxes, _ = candidates(count, classes, classes=1, spread=2000, largest=30)
    assert_as_defined(Postprocess(several_labels=several), boxes, scores)


@pytest.mark.parametrize("several", [False, True])
def test_columns_and_rows_of_larger_arrays_will_do(several) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((90, 12), np.float32)[::2, 1:8]
    boxes, _ = candidates(90, 0, classes=1, spread=60, largest=40)
    assert_as_defined(Postprocess(several_labels=several), boxes[::2], scores)


def test_no_classes_give_no_detections() -> None:
    boxes, _ = candidates(9, 0, classes=1, spread=60, largest=40)
    found, _, _ = Postprocess()(boxes, np.empty((9, 0), np.float32))
    assert len(found) == 0


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("more", [0, 1])
def test_boxes_are_read_up_to_a_million_pixels_from_the_corner(place: int, more: int) -> None:
    """One box is looked at in another way than several."""
    other = np.array([[10, 10, 20, 20]] * more, np.float32).reshape(-1, 4)
    for far, usable in ((999_999.5, True), (1_000_000, False), (np.inf, False)):
        box = np.array([[0, 0, 5, 5]], np.float32)
        box[0, place] = far if place >= 2 else -far
        boxes = np.concatenate([box, other])
        found, _, _ = Postprocess()(boxes, np.full((1 + more, 1), 0.5, np.float32))
        np.testing.assert_array_equal(found, boxes if usable else other)


FINE, EMPTY, FLAT = [0, 0, 10, 10], [5, 5, 5, 9], [5, 5, 9, 5]
LEFT_OF_ITSELF, ABOVE_ITSELF = [9, 0, 5, 10], [0, 9, 10, 5]


@pytest.mark.parametrize(
    ("boxes", "scores", "found", "broken", "unusable"),
    [
        ([], [], 0, 0, 0),
        ([FINE], [0.9], 1, 0, 0),
        ([FINE], [0.25], 0, 0, 0),
        ([FINE], [1.0009], 1, 0, 0),
        ([FINE], [1.001], 1, 0, 0),
        ([FINE, FINE], [1.001, 0.9], 1, 0, 0),
        ([FINE], [1.0011], 0, 1, 0),
        ([FINE], [np.nan], 0, 1, 0),
        ([FINE], [-0.5], 0, 0, 0),
        ([EMPTY], [0.9], 0, 0, 1),
        ([EMPTY], [0.1], 0, 0, 0),
        *(([box], [0.9], 0, 0, 1) for box in (FLAT, LEFT_OF_ITSELF, ABOVE_ITSELF)),
        ([LEFT_OF_ITSELF, FLAT, ABOVE_ITSELF, FINE], [0.9] * 4, 1, 0, 3),
        ([EMPTY, FINE], [0.9, 0.8], 1, 0, 1),
        ([EMPTY, EMPTY], [0.9, 0.8], 0, 0, 2),
        ([EMPTY, FINE, FINE], [0.9, 0.8, 1.5], 1, 1, 1),
        ([FINE, FINE], [1.5, np.inf], 0, 2, 0),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_broken_is_counted(boxes, scores, found, broken, unusable, several) -> None:
    columns = np.array(scores, np.float32).reshape(-1, 1)
    given = np.array(boxes, np.float32).reshape(-1, 4)
    made = Postprocess(several_labels=several).find(given, columns)
    assert (made.broken_scores, made.unusable_boxes) == (broken, unusable)
    assert [len(column) for column in made[:3]] == [found] * 3
    assert (made.confidences <= 1).all()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("several", [False, True])
def test_a_score_that_is_rounded_to_the_limit_is_not_above_it(count, several) -> None:
    boxes, scores = np.array([FINE] * count, np.float32), np.full((count, 3), 1.0005, np.float32)
    made = Postprocess(confidence=1.0, several_labels=several).find(boxes, scores)
    assert (len(made.confidences), made.broken_scores) == (0, 0)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("words", [1 << 16, (1 << 16) + 8, (1 << 16) + 1])
@pytest.mark.parametrize("rest", [0, 3])
def test_in_a_head_of_any_size_scores_above_the_limit_are_found_and_no_others(
    several, words, rest
) -> None:
    """Beside those that are equal to it, and alone among eight and sixty-four."""
    places = [0, 7, 64, 65, 8 * 300 + 5, 64 * 4000, 8 * words - 8, 8 * words + rest - 1]
    scores = np.full((8 * words + rest, 1), 0.25, np.float32)
    scores[places] = 0.5
    candidates_of = every_label if several else best_label
    assert candidates_of(scores, 0.25).anchors.tolist() == places
