from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.evaluation.coco import Truth
from dyninfer.exporters.router.observe import View, make_views


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


def test_pictures_without_truth_and_of_one_pixel_pass():
    for view in make_views(View(np.zeros((1, 1, 3), np.uint8), None), 8, seed=0):
        assert view.truth is None
        assert min(view.picture.shape) >= 1
