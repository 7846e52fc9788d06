from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import AlwaysHard, Detections, Postprocess
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.exporters.router.observe import View, make_views, usual_confidence, view_batches

USUAL_PICTURES = 100


def picture_with_square(height: int = 60, width: int = 80) -> View:
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[20:40, 10:50] = (40, 40, 200)
    truth = Truth(np.array([[10.0, 20, 50, 40]]), np.array([3]), np.array([False]))
    return View(picture, truth)


def test_the_picture_itself_comes_first_and_as_it_is():
    view = picture_with_square()
    views = list(make_views(view, 3, seed=0))
    assert views[0] is view
    assert len(views) == 4


def test_no_further_views_where_none_are_asked_for():
    assert len(list(make_views(picture_with_square(), 0, seed=0))) == 1


def test_the_same_seed_makes_the_same_views():
    one, same, other = (list(make_views(picture_with_square(), 5, seed=s)) for s in (4, 4, 5))
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
    assert any(a.picture.shape != b.picture.shape for a, b in zip(one, other, strict=True))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_boxes_move_with_what_they_hold(seed: int):
    for view in make_views(picture_with_square(), 8, seed):
        assert view.truth is not None
        ((left, top, right, bottom),) = np.round(view.truth.boxes_xyxy).astype(int)
        assert 0 <= left < right <= view.picture.shape[1]
        assert 0 <= top < bottom <= view.picture.shape[0]
        reddish = view.picture[..., 2].astype(int) - view.picture[..., 0] > 60
        assert reddish[top:bottom, left:right].all()
        assert reddish.sum() == (bottom - top) * (right - left)


def test_a_cut_keeps_an_object_where_there_is_one():
    for seed in range(20):
        for view in make_views(picture_with_square(), 8, seed):
            assert view.truth is not None
            assert view.truth.crowd is not None
            assert not view.truth.crowd.all()


def test_a_cut_keeps_the_only_object_also_where_most_cuts_would_lose_it():
    corner = Truth(np.array([[0.0, 0, 4, 4]]), np.array([3]), np.array([False]))
    view = View(np.zeros((60, 80, 3), np.uint8), corner)
    for seed in range(20):
        for each in make_views(view, 8, seed):
            assert each.truth is not None
            assert each.truth.crowds.tolist() == [False]


def test_pictures_without_truth_and_of_one_pixel_pass():
    for view in make_views(View(np.zeros((1, 1, 3), np.uint8), None), 8, seed=0):
        assert view.truth is None
        assert min(view.picture.shape) >= 1


def test_the_kinds_of_views_and_which_are_mirrored():
    height, width = 60, 80
    for seed in range(10):
        views = list(make_views(picture_with_square(height, width), 8, seed))[1:]
        shapes = [view.picture.shape[:2] for view in views]
        for number in (0, 1, 4, 5):
            assert 0.4 * height < shapes[number][0] <= height
            assert 0.54 * width < shapes[number][1] < 0.96 * width
        for number in (2, 6):
            assert 1.1 * height < shapes[number][0] < 1.91 * height
            assert 1.1 * width < shapes[number][1] < 1.91 * width
            grey = np.abs(views[number].picture[0, 0].astype(int) - 114).max()
            assert grey < 114 * 0.2 + 15 + 1
        assert shapes[3] == shapes[7] == (height, width)
        for number in (3, 7):
            assert views[number].truth.boxes_xyxy.tolist() == [[30, 20, 70, 40]]


def test_of_light_a_fifth_is_taken_or_added_and_15_levels():
    def seen(shade: int) -> set[int]:
        view = View(np.full((2, 2, 3), shade, np.uint8), None)
        kept = (list(make_views(view, 4, seed))[4].picture for seed in range(200))
        return {int(picture[0, 0, 0]) for picture in kept}

    assert max(seen(0)) == 14  # of 14.9, say
    grey = seen(100)
    assert 65 <= min(grey) < 70
    assert 130 < max(grey) < 135


@pytest.mark.parametrize("shade", [0, 255])
def test_light_changes_by_a_fifth_and_15_levels_and_never_past_the_ends(shade: int):
    view = View(np.full((8, 8, 3), shade, np.uint8), None)
    seen = set()
    for seed in range(30):
        kept = list(make_views(view, 4, seed))[4]  # which keeps its frame
        assert kept.picture.shape == (8, 8, 3)
        seen |= {*kept.picture.ravel().tolist()}
    least, most = (0, 15) if shade == 0 else (255 * 0.8 - 15 - 1, 255)
    assert least <= min(seen) <= max(seen) <= most
    assert (0 in seen, 255 in seen) == (shade == 0, shade == 255)
    assert len(seen) > 5


def test_what_a_cut_leaves_of_an_object_decides_whether_it_is_there():
    """0.15 of a box, or it is gone; less than half, and it may be found or not."""
    picture = np.full((60, 80, 3), 90, np.uint8)
    picture[2:30, 2:38], picture[32:58, 42:78] = (40, 40, 200), (200, 40, 40)
    boxes = np.array([[2.0, 2, 38, 30], [42, 32, 78, 58]])
    areas = (28 * 36, 26 * 36)
    view = View(picture, Truth(boxes, np.array([0, 1]), np.zeros(2, bool)))
    seen = set()
    for seed in range(60):
        for cut in list(make_views(view, 2, seed))[1:]:
            tint = cut.picture[..., 2].astype(int) - cut.picture[..., 0]
            shares = [(tint > 60).sum() / areas[0], (tint < -60).sum() / areas[1]]
            there = [number for number in (0, 1) if shares[number] >= 0.15]
            assert cut.truth.class_ids.tolist() == there
            assert cut.truth.crowd.tolist() == [shares[number] < 0.5 for number in there]
            seen |= {min(int(share / 0.05), 12) for share in shares}
    assert {0, 2, 3, 4, 9, 10} <= seen  # near either limit, too


class Sure:
    """Finds a thing with the confidence that the first pixel of a picture holds, in hundredths."""

    def __init__(self):
        self.asked = 0

    def answers(self, images, *, options, policy):
        assert options == Postprocess(confidence=0.01)
        assert policy == AlwaysHard()
        self.asked += 1
        sure = int(images[0][0, 0, 0]) / 100
        found = np.array([sure, 0.01] if sure else [], np.float32)
        count = len(found)
        boxes = np.ones((count, 4), np.float32)
        return [Detections(boxes, found, np.zeros(count, np.int64), ("it",) * count)]


@pytest.mark.parametrize(
    ("hundredths", "expected"),
    [
        ([0, 0, 0], 0.05),
        ([5], 0.05),
        ([90] * 3, 0.54),
        ([0, 40, 80], 0.6 * 0.76),  # between 0.4 and 0.8 as the 95th of 100 lies
        ([0, 80], 0.6 * 0.76),  # between nothing and 0.8
        ([90] * 19 + [0], 0.54),
    ],
)
def test_the_usual_confidence_is_a_share_of_what_the_surest_have(
    tmp_path: Path, hundredths: list[int], expected: float
):
    items = []
    for number, sure in enumerate(hundredths):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.full((2, 2, 3), sure, np.uint8))
        items.append(Sample(path))
    detector, ticks = Sure(), []
    found = usual_confidence(
        detector, Samples(tuple(items)), Postprocess(confidence=0.01), lambda: ticks.append(1)
    )
    assert found == pytest.approx(expected)
    assert detector.asked == len(ticks) == len(items)


def test_only_some_pictures_are_asked_for_the_usual_confidence(tmp_path: Path):
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.full((2, 2, 3), 50, np.uint8))
    detector = Sure()
    many = Samples((Sample(path),) * (3 * USUAL_PICTURES))
    assert usual_confidence(detector, many, Postprocess(confidence=0.01)) == pytest.approx(0.3)
    assert detector.asked == USUAL_PICTURES


def test_the_sizes_of_cuts_and_borders_fill_their_ranges():
    """Cuts of 0.55 to 0.95 of a side, the height within 15 % of the width's share or whole."""
    height, width = 300, 400
    view = View(np.zeros((height, width, 3), np.uint8), None)
    cuts, borders = [], []
    for seed in range(60):
        for number, other in enumerate(list(make_views(view, 4, seed))[1:4]):
            sides = np.array(other.picture.shape[:2]) / (height, width)
            (borders if number == 2 else cuts).append(sides)
    heights, widths = np.array(cuts).T
    assert 0.545 < widths.min() < 0.57
    assert 0.93 < widths.max() <= 0.95
    ratios = heights / widths
    assert 0.84 < ratios.min() < 0.87
    assert 1.12 < ratios.max() < 1.16
    assert heights.max() == 1
    factors = np.array(borders)
    assert np.abs(factors[:, 0] - factors[:, 1]).max() < 0.004
    assert 1.145 < factors.min() < 1.2
    assert 1.85 < factors.max() <= 1.9


def test_where_a_cut_lies_and_where_a_picture_lies_on_its_border_reaches_every_edge():
    ramp = np.zeros((60, 80, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(80) * 3, np.arange(60)[:, None] * 4
    corners = View(ramp, Truth(np.array([[0.0, 0, 80, 60]]), np.array([0]), np.array([False])))
    places = {"cut": [], "border": [], "mirrored": []}
    for seed in range(200):
        views = list(make_views(corners, 9, seed))
        ((left, top, right, bottom),) = views[7].truth.boxes_xyxy
        shape = views[7].picture.shape  # on a border
        places["border"].append((left, top, shape[1] - right, shape[0] - bottom))
        cut = views[5].picture.astype(float)  # which is not mirrored
        step = cut[0, -1, 0] - cut[0, 0, 0]
        places["cut"].append((cut[0, 0, 0] < 40, step > 0))
        ends = (views[number].picture[0, [0, -1], 0].astype(float) for number in (1, 2, 9))
        places["mirrored"] += [left > right for left, right in ends]
    assert np.min(places["border"]) == 0
    assert (np.min(places["border"], axis=0) <= 1).all()
    first, rising = np.array(places["cut"]).T
    assert rising.all()
    assert all(places["mirrored"])
    assert 0 < first.mean() < 1


def test_views_of_a_picture_come_eight_at_a_time(tmp_path: Path):
    items = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.full((20, 20, 3), 50 + number, np.uint8))
        items.append(Sample(path))
    found = [(photo, path, len(views)) for photo, path, views in view_batches(items, 12)]
    assert found == [
        (photo, item.path, count) for photo, item in enumerate(items) for count in (8, 5)
    ]
    whole = [len(views) for *_, views in view_batches(items[:1], 15)]
    assert whole == [8, 8]
    ((_, _, alone),) = view_batches(items[1:], 0)
    assert (alone[0].picture == 51).all()
    again = [v.picture for *_, views in view_batches(items, 2) for v in views]
    seeded = [v.picture for v in make_views(View(again[3], None), 2, seed=1)]
    for one, other in zip(again[3:], seeded, strict=True):
        np.testing.assert_array_equal(one, other)
