"""Further views of few pictures: cut, shrunk, mirrored, darker or brighter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dyninfer.evaluation.coco import Truth
from dyninfer.types import AnyArray, Float64Array, ImageArray

_GREY = 114
_TRIES = 20
_GONE, _PARTLY = 0.15, 0.5  # visible shares of a box: below, it is not there; or may be


@dataclass(frozen=True)
class View:
    """A picture (h, w, 3) uint8 BGR and what is in it, where that is known."""

    picture: ImageArray
    truth: Truth | None


def make_views(view: View, count: int, seed: int) -> Iterator[View]:
    """The picture itself, then ``count`` others made from it; the same for the same seed.

    Of four, two are cuts of 0.55 to 0.95 of either side, one is shrunk on a grey border by 1.15
    to 1.9, and one keeps its frame; every other one is mirrored, and all vary in brightness.
    """
    yield view
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = number % 4
        changed = (
            _shrink(view, rng) if kind == 2 else view if kind == 3 else _cut_with_object(view, rng)
        )
        if kind == 3 or (number // 4) % 2 == 0:
            changed = _mirror(changed)
        yield View(_relight(changed.picture, rng), changed.truth)


def _cut_with_object(view: View, rng: np.random.Generator) -> View:
    """A random cut that keeps most of at least one object, where there is one."""
    for _ in range(_TRIES):
        cut = _cut(view, rng)
        if cut.truth is None or not len(cut.truth.class_ids) or not cut.truth.crowds.all():
            return cut
    return view


def _cut(view: View, rng: np.random.Generator) -> View:
    height, width = view.picture.shape[:2]
    share = rng.uniform(0.55, 0.95)
    new_width = max(1, int(width * share))
    new_height = max(1, int(height * min(1.0, share * rng.uniform(0.85, 1.15))))
    left = int(rng.integers(0, width - new_width + 1))
    top = int(rng.integers(0, height - new_height + 1))
    picture = np.ascontiguousarray(view.picture[top : top + new_height, left : left + new_width])
    if view.truth is None:
        return View(picture, None)
    moved = view.truth.boxes_xyxy - np.array([left, top, left, top])
    boxes = np.clip(moved, 0, [new_width, new_height, new_width, new_height])
    visible = _areas(boxes) / np.maximum(_areas(moved), 1e-9)
    there = visible >= _GONE
    truth = Truth(
        boxes_xyxy=boxes[there],
        class_ids=view.truth.class_ids[there],
        crowd=(view.truth.crowds | (visible < _PARTLY))[there],
    )
    return View(picture, truth)


def _shrink(view: View, rng: np.random.Generator) -> View:
    height, width = view.picture.shape[:2]
    factor = rng.uniform(1.15, 1.9)
    canvas = np.full((int(height * factor), int(width * factor), 3), _GREY, np.uint8)
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    canvas[top : top + height, left : left + width] = view.picture
    return _moved(view, canvas, lambda boxes: boxes + np.array([left, top, left, top]))


def _mirror(view: View) -> View:
    picture, width = np.ascontiguousarray(view.picture[:, ::-1]), view.picture.shape[1]
    signs, edges = np.array([-1, 1, -1, 1]), np.array([width, 0, width, 0])
    return _moved(view, picture, lambda boxes: edges + signs * boxes[:, [2, 1, 0, 3]])


def _moved(view: View, picture: ImageArray, move: Callable[[AnyArray], AnyArray]) -> View:
    truth = view.truth
    return View(picture, truth and replace(truth, boxes_xyxy=move(truth.boxes_xyxy), areas=None))


def _relight(picture: ImageArray, rng: np.random.Generator) -> ImageArray:
    lit = picture.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def _areas(boxes: npt.NDArray[np.floating]) -> Float64Array:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1), np.float64)
