from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from dyninfer.images.drawing import EASY_BGR, PREDICTED_BGR, annotate, class_colour
from dyninfer.results.answers import Classification, Detections


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidences=np.full(len(boxes), 0.9, np.float32),
        class_ids=np.arange(len(boxes)),
        class_names=tuple(f"thing {i}" for i in range(len(boxes))),
        easiness=0.25,
    )


def test_nothing_found_draws_the_badge_alone() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    drawn = annotate(picture, detections())
    assert not picture.any()
    assert drawn[150:].any()
    assert not drawn[:150].any()
    assert not annotate(picture, detections(), badge=False).any()


def test_a_box_is_drawn_in_its_colour_where_it_is() -> None:
    drawn = annotate(np.zeros((400, 400, 3), np.uint8), detections((100, 150, 300, 350)))
    assert tuple(drawn[250, 100]) == class_colour(0)
    assert tuple(drawn[350, 200]) == class_colour(0)
    assert not drawn[200:300, 150:250].any()


@pytest.mark.parametrize("size", [(1, 1), (8, 2000), (2000, 8), (1500, 1500)])
def test_any_size_and_boxes_at_the_edges_can_be_drawn(size: tuple[int, int]) -> None:
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    drawn = annotate(picture, detections((0, 0, width, height), (0, 0, 0, 0)))
    assert drawn.shape == picture.shape


def test_the_best_classes_stand_in_the_corner_and_the_way_below() -> None:
    picture = np.full((400, 400, 3), 128, np.uint8)
    names = tuple(f"thing {i}" for i in range(9))
    answer = Classification(np.arange(9), np.linspace(0.9, 0.1, 9).astype(np.float32), names)
    drawn = annotate(picture, answer, badge=False)
    colours = {tuple(colour) for colour in drawn[:, 0].tolist()}
    assert colours == {(128, 128, 128), *(class_colour(i) for i in range(5))}
    assert (drawn[200:] == 128).all()
    branch = annotate(picture, answer, "branch 0")
    assert (branch[:200] == drawn[:200]).all()
    assert (branch[350:] != annotate(picture, answer)[350:]).any()


def test_neighbouring_classes_have_different_colours() -> None:
    colours = [class_colour(i) for i in range(80)]
    assert len(set(colours)) == 80
    gaps = [np.abs(np.subtract(a, b)).max() for a, b in pairwise(colours)]
    assert min(gaps) > 60


def test_tracked_boxes_have_the_colours_of_their_ids() -> None:
    found = detections((20, 50, 150, 380), (220, 50, 380, 380))
    tracked = Detections(**{**vars(found), "track_ids": np.array([7, -1])})
    picture = np.zeros((400, 400, 3), np.uint8)
    drawn = annotate(picture, tracked)
    assert tuple(drawn[250, 20]) == class_colour(7)
    assert tuple(drawn[250, 220]) == class_colour(1)  # of its class, as long as it has no id
    assert (drawn[:50, :200] != annotate(picture, found)[:50, :200]).any()  # the number is there


@pytest.mark.parametrize("second", [(40, 100, 200, 380), (60, 90, 200, 380), (43, 103, 201, 381)])
def test_labels_of_boxes_on_one_another_can_both_be_read(second) -> None:
    drawn = annotate(np.zeros((400, 400, 3), np.uint8), detections((40, 100, 200, 380), second))
    for row in range(2):
        assert shows(drawn, label(row))


def test_the_surest_label_stands_on_top_where_no_room_is_left() -> None:
    found = detections(*[(0, 370, 300, 390)] * 9)
    drawn = annotate(np.zeros((400, 400, 3), np.uint8), found, badge=False)
    assert shows(drawn, label(0))


def test_a_frame_in_between_does_not_claim_an_exit() -> None:
    found = detections()
    picture = np.zeros((400, 400, 3), np.uint8)
    predicted = Detections(**{**vars(found), "predicted": True})
    drawn = annotate(picture, predicted, "first")
    assert tuple(drawn[398, 0]) == PREDICTED_BGR
    assert tuple(annotate(picture, found, "first")[398, 0]) == EASY_BGR
    assert (drawn == annotate(picture, predicted, "second")).all()


def shows(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether it is there, but for what the sum of squares is rounded to."""
    return bool(cv2.matchTemplate(picture, part, cv2.TM_SQDIFF).min() < 1000)


def label(row: int) -> np.ndarray:
    """How the label of that thing looks, cut from a picture in which it has room."""
    found = detections(*[(0, 100 + 100 * other, 300, 390) for other in range(row + 1)])
    drawn = annotate(np.zeros((400, 400, 3), np.uint8), found, badge=False)
    upper = drawn[: 100 + 100 * row]
    inside = (upper[:, 0] == class_colour(row)).all(axis=1).nonzero()[0]
    top, bottom = inside[0] + 1, inside[-1]
    right = (upper[top] == class_colour(row)).all(axis=1).nonzero()[0][-1]
    return upper[top:bottom, : right + 1]
