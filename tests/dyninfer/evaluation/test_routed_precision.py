from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.routed_precision import RoutedPrecision, match_picture
from dyninfer.results.answers import Detections
from tests.support import refuses

CLASSES = 3


def random_detections(rng: np.random.Generator, near: np.ndarray, count: int) -> Detections:
    """Some beside the objects, some anywhere; confidences with ties."""
    boxes = random_boxes(rng, count)
    copied = min(count, len(near))
    boxes[:copied] = near[:copied] + rng.normal(0, 4, (copied, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Detections(
        boxes.astype(np.float32),
        np.round(rng.random(count), 1).astype(np.float32),
        rng.integers(0, CLASSES, count),
        ("",) * count,
    )


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.random((count, 2)) * 100
    return np.concatenate([corners, corners + 10 + rng.random((count, 2)) * 60], axis=1)


def random_pictures(
    seed: int, count: int, exits: int = 2
) -> tuple[list[Truth], list[list[Detections]]]:
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(count):
        boxes = random_boxes(rng, int(rng.integers(0, 5)))
        crowd = rng.random(len(boxes)) < 0.3
        truths.append(Truth(boxes, rng.integers(0, CLASSES, len(boxes)), crowd))
        found.append([random_detections(rng, boxes, int(rng.integers(0, 9))) for _ in range(exits)])
    return truths, found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 3))
def test_any_mixture_has_the_precision_that_coco_gives_it(
    seed: int, count: int, exits: int
) -> None:
    truths, found = random_pictures(seed, count, exits)
    chosen = np.random.default_rng(seed).integers(0, exits, count)
    mixed = [of_picture[index] for of_picture, index in zip(found, chosen, strict=True)]
    expected = average_precision(truths, mixed, CLASSES)
    matches = [match_picture(*pair) for pair in zip(truths, found, strict=True)]
    got = RoutedPrecision(matches).at(chosen)
    if expected.ap is None or expected.ap50 is None:
        assert got.primary is None or not any(
            (~t.crowd).any() for t in truths if t.crowd is not None
        )
        return
    assert got.primary == pytest.approx(expected.ap, abs=1e-9)
    assert got.secondary == pytest.approx(expected.ap50, abs=1e-9)


def test_no_pictures_and_no_objects_have_no_precision() -> None:
    assert RoutedPrecision([]).at([]).primary is None
    nothing = Truth(np.empty((0, 4)), np.empty(0, np.int64))
    found = random_detections(np.random.default_rng(0), np.empty((0, 4)), 3)
    assert RoutedPrecision([match_picture(nothing, [found])]).at([0]).primary is None


def test_more_than_a_hundred_detections_of_a_class_do_not_count() -> None:
    truth = Truth(np.array([[0.0, 0, 50, 50]]), np.array([0]))
    boxes = np.repeat(np.array([[200, 200, 220, 220]], np.float32), 101, axis=0)
    boxes[-1] = [0, 0, 50, 50]
    confidences = np.linspace(0.9, 0.1, 101, dtype=np.float32)
    found = Detections(boxes, confidences, np.zeros(101, np.int64), ("",) * 101)
    assert RoutedPrecision([match_picture(truth, [found])]).at([0]).primary == 0
    assert average_precision([truth], [found], 1).ap == 0


def test_one_exit_for_every_picture_is_required() -> None:
    truths, found = random_pictures(0, 2)
    matches = [match_picture(*pair) for pair in zip(truths, found, strict=True)]
    with refuses(InputError, "(3,)", "(2,)"):
        RoutedPrecision(matches).at([0, 1, 1])
