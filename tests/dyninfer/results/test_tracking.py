"""Ids that objects keep from frame to frame, and boxes of frames that no engine ran for."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dyninfer
from dyninfer.results.tracking import Tracker
from tests import support

SIZE = (200, 400)


def frame(number: int, time_s: float | None) -> dyninfer.Frame:
    return dyninfer.Frame(np.zeros((*SIZE, 3), np.uint8), number, time_s, "made")


def found(*boxes: tuple[float, ...], sure: tuple[float, ...] | None = None) -> dyninfer.Detections:
    return dyninfer.Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(sure or [0.9] * len(boxes), np.float32),
        np.arange(len(boxes)),
        tuple(f"thing {row}" for row in range(len(boxes))),
        timings_ms={"body": 1.0},
    )


def two_cars(number: int) -> list[tuple[float, ...]]:
    """One drives to the right, 6 pixels a frame, one to the left, 4, and they pass each other."""
    right, left = 20 + 6 * number, 300 - 4 * number
    return [(right, 20, right + 60, 60), (left, 120, left + 80, 180)]


@pytest.fixture
def tracker() -> Tracker:
    pytest.importorskip("trackers", reason="the extra track is not installed")
    return Tracker(0.25)


@pytest.mark.parametrize("timed", [True, False], ids=["times", "no times"])
def test_ids_stay_with_their_objects_whatever_the_order(tracker, timed) -> None:
    ids = []
    for number in range(40):
        boxes = two_cars(number)
        order = [1, 0] if number % 3 else [0, 1]
        here = tracker(
            frame(number, number / 25 if timed else None), found(*(boxes[i] for i in order))
        )
        assert not here.predicted
        np.testing.assert_array_equal(here.boxes_xyxy, [boxes[i] for i in order])
        ids.append(here.track_ids[np.argsort(order)].tolist())
    assert ids[0] == [-1, -1]  # seen once
    assert len({*map(tuple, ids[1:])}) == 1
    assert len({*ids[1], -1}) == 3


def test_the_unsure_go_on_but_do_not_begin(tracker) -> None:
    box = (10, 10, 60, 60)
    assert [tracker(frame(n, n / 25), found(box, sure=(0.3,))).track_ids[0] for n in range(4)] == [
        -1
    ] * 4
    ids = [tracker(frame(n, n / 25), found(box, sure=(0.6,))).track_ids[0] for n in range(4, 7)]
    assert ids[-1] >= 0
    assert tracker(frame(7, 7 / 25), found(box, sure=(0.26,))).track_ids[0] == ids[-1]


def test_who_is_lost_for_less_than_a_second_is_known_again(tracker) -> None:
    for gap, same in ((15, True), (60, False)):
        start = 1000 * gap
        box = (10, 10, 60, 60)
        before = [tracker(frame(n, (start + n) / 25), found(box)).track_ids[0] for n in range(3)]
        for number in range(3, 3 + gap):
            assert not len(tracker(frame(number, (start + number) / 25), found()))
        for number in range(3 + gap, 6 + gap):
            after = tracker(frame(number, (start + number) / 25), found(box)).track_ids[0]
        assert bool(after == before[-1]) is same


@pytest.mark.parametrize("every", [2, 5])
def test_frames_in_between_are_predicted(tracker, every) -> None:
    tracker, wrong, held = Tracker(0.25, every), [], []
    for number in range(50):
        run = number % every == 0
        still = (380, 180, 398, 198)  # too unsure for an id
        seen = found(*two_cars(number), still, sure=(0.9, 0.8, 0.3)) if run else None
        here = tracker(frame(number, number / 25), seen)
        assert here.predicted is not run
        assert here.timings_ms == ({"body": 1.0} if run else {})
        assert here.class_names == ("thing 0", "thing 1", "thing 2")
        np.testing.assert_array_equal(here.boxes_xyxy[2], still)
        if not run and number >= 20:
            wrong.append(np.abs(here.boxes_xyxy[:2] - two_cars(number)).max())
            held.append(
                np.abs(np.array(two_cars(number - number % every)) - two_cars(number)).max()
            )
    assert here.track_ids[2] == -1
    assert len({*here.track_ids.tolist()}) == 3
    assert max(wrong) < 2.5
    assert np.mean(wrong) < np.mean(held) / 4


def test_predicted_boxes_stay_in_the_picture(tracker) -> None:
    for number in range(12):
        right = 300 + 10 * number
        here = tracker(frame(number, number / 25), found((right, -5, right + 40, 30)))
    for number in range(12, 30):
        here = tracker(frame(number, number / 25), None)
        assert (here.boxes_xyxy >= 0).all()
        assert (here.boxes_xyxy <= [400, 200, 400, 200]).all()


def test_frames_of_the_same_time_and_of_none_are_followed(tracker) -> None:
    box = (10, 10, 60, 60)
    for time_s in (1.0, 1.0, 1.0, 0.5, None, None, 2.0):
        here = tracker(frame(0, time_s), found(box))
    assert here.track_ids[0] >= 0
    for time_s in (2.0, 2.0, None):
        np.testing.assert_allclose(tracker(frame(0, time_s), None).boxes_xyxy, [box], atol=1)


def test_nothing_found_is_followed_too(tracker) -> None:
    for number in range(4):
        here = tracker(frame(number, number / 25), None if number % 2 else found())
        assert here.track_ids.shape == (0,)
        assert here.predicted is bool(number % 2)
        assert here.to_dict()["detections"] == []


def test_ids_are_in_the_document_and_none_where_there_is_none(tracker) -> None:
    plain = found((10, 10, 60, 60))
    assert plain.track_ids is None
    assert {"predicted", "track_id"} & {
        *plain.to_dict(),
        *plain.to_dict()["detections"][0],
    } == set()
    ids = [tracker(frame(n, n / 25), plain).to_dict() for n in range(3)]
    assert ids[0]["detections"][0]["track_id"] is None
    assert ids[2]["detections"][0]["track_id"] == ids[1]["detections"][0]["track_id"] >= 0
    assert ids[2]["predicted"] is False
    assert tracker(frame(3, 3 / 25), None)["predicted"] is True
    with support.refuses(dyninfer.InputError, "track_ids is int64 (2,), expected int64 (1,)"):
        dyninfer.Detections(**{**vars(plain), "track_ids": np.zeros(2, np.int64)})


@pytest.mark.parametrize("missing", ["trackers", "supervision"])
def test_without_the_library_one_line_says_what_to_install(two_exits, monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with support.refuses(dyninfer.MissingExtra, "tracking needs", "trackers", "[track]"):
        two_exits.stream("street.mp4", track=True)
    with support.refuses(dyninfer.MissingExtra, "[track]"):
        two_exits.stream("street.mp4", policy=dyninfer.EveryNth(5))
