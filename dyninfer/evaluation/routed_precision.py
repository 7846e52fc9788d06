"""COCO average precision of any choice of ways, without matching a picture twice.

A curve, a random baseline and an oracle ask for the precision of hundreds of mixtures of the same
detections. Which detection finds which object does not depend on the other pictures, so it is
settled once for every way of every picture; a mixture then costs milliseconds. The result equals
:func:`dyninfer.evaluation.coco.average_precision` (a test compares them).

Definitions: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and
https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth
from dyninfer.results.answers import Detections
from dyninfer.results.scores import Scores
from dyninfer.types import BoolArray, Float64Array, Int64Array

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_PER_CLASS = 100  # of a picture, the surest first
_LEVELS = len(IOU_THRESHOLDS)


@dataclass(frozen=True)
class Matches:
    """Detections (D,) of one picture at one way, by class and then the surest first.

    ``true`` (D, 10) says whether each finds an object, at each IoU threshold; ``ignored`` (D, 10)
    whether it lies in a crowd and so counts neither way.
    """

    class_ids: Int64Array
    confidences: npt.NDArray[np.float32]
    true: BoolArray
    ignored: BoolArray


@dataclass(frozen=True)
class PictureMatches:
    """One picture at every way.

    ``object_classes`` (G,) are the classes of its objects, crowds left out.
    """

    exits: tuple[Matches, ...]
    object_classes: Int64Array


def match_picture(truth: Truth, found: Sequence[Detections]) -> PictureMatches:
    """Settle which detection finds which object; ``found`` holds one entry for every way."""
    matches = tuple(_match_exit(truth, columns) for columns in found)
    return PictureMatches(matches, np.asarray(truth.class_ids, np.int64)[~truth.crowds])


def _match_exit(truth: Truth, found: Detections) -> Matches:
    order = np.lexsort((-found.confidences, found.class_ids))
    class_ids = np.asarray(found.class_ids, np.int64)[order]
    # position among the detections of its class
    rank = np.arange(len(order)) - np.searchsorted(class_ids, class_ids)
    order, class_ids = order[rank < MAX_PER_CLASS], class_ids[rank < MAX_PER_CLASS]
    overlap = _overlaps(found.boxes_xyxy[order], truth.boxes_xyxy, truth.crowds)
    overlap[class_ids[:, None] != np.asarray(truth.class_ids)[None]] = 0.0
    true, ignored = _assign(overlap, truth.crowds)
    return Matches(class_ids, np.asarray(found.confidences[order], np.float32), true, ignored)


def _overlaps(
    found: npt.NDArray[np.floating], objects: npt.NDArray[np.floating], crowd: BoolArray
) -> Float64Array:
    """(D, G) IoU; with a crowd, the share of the detection that lies in it."""
    a = np.asarray(found, np.float64).reshape(-1, 4)
    b = np.asarray(objects, np.float64).reshape(-1, 4)
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    whole = np.where(crowd[None], area_a[:, None], area_a[:, None] + area_b[None] - shared)
    return np.asarray(np.where(whole > 0, shared / np.where(whole > 0, whole, 1), 0), np.float64)


def _assign(overlap: Float64Array, crowd: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Give every detection, the surest first, the free object that it overlaps most.

    Returns:
        (D, 10) true and (D, 10) ignored. Of equal overlaps the last object counts, as in COCO's
        own code; a crowd takes any number of detections that no object has taken.
    """
    count, objects = overlap.shape
    true = np.zeros((count, _LEVELS), np.bool_)
    ignored = np.zeros((count, _LEVELS), np.bool_)
    free = np.broadcast_to(~crowd, (_LEVELS, objects)).copy()
    for row in np.flatnonzero(overlap.max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0]):
        reached = overlap[row] >= IOU_THRESHOLDS[:, None]
        usable = np.where(reached & free, overlap[row], -1.0)
        best = objects - 1 - usable[:, ::-1].argmax(axis=1)
        hit = usable.max(axis=1) >= 0
        free[hit, best[hit]] = False
        true[row] = hit
        ignored[row] = ~hit & (reached & crowd).any(axis=1)
    return true, ignored


class RoutedPrecision:
    """All detections of all pictures at all ways, in the order in which COCO adds them up."""

    def __init__(self, pictures: Sequence[PictureMatches]) -> None:
        self._pictures = pictures
        self._count = len(pictures)
        classes = np.concatenate([p.object_classes for p in pictures] or [np.empty(0, np.int64)])
        self._objects = Counter(np.sort(classes).tolist())
        entries = [
            (number, index, matches)
            for number, picture in enumerate(pictures)
            for index, matches in enumerate(picture.exits)
        ]
        sizes = [len(matches.class_ids) for _, _, matches in entries]
        picture = np.repeat(np.array([number for number, _, _ in entries], np.int64), sizes)
        exit_index = np.repeat(np.array([index for _, index, _ in entries], np.int64), sizes)
        nothing = np.empty((0, _LEVELS), np.bool_)
        class_ids = np.concatenate([np.empty(0, np.int64), *(m.class_ids for _, _, m in entries)])
        confidences = np.concatenate([np.empty(0), *(m.confidences for _, _, m in entries)])
        # stable: of equal confidences, the earlier picture's comes first
        order = np.lexsort((-confidences, class_ids))
        self._picture, self._exit, self._class = picture[order], exit_index[order], class_ids[order]
        self._true = np.concatenate([nothing, *(m.true for _, _, m in entries)])[order]
        self._ignored = np.concatenate([nothing, *(m.ignored for _, _, m in entries)])[order]

    def at(self, ways: npt.ArrayLike) -> Scores:
        """AP and AP50 when every picture takes the given way, (N,) integers from 0.

        Raises:
            InputError: there is not one way for every picture.
        """
        chosen = one_for_each(ways, self._count)
        if not self._objects:
            return Scores()
        kept = np.flatnonzero(chosen[self._picture] == self._exit)
        class_ids, true, ignored = self._class[kept], self._true[kept], self._ignored[kept]
        levels = []
        for class_id, objects in self._objects.items():
            start, stop = np.searchsorted(class_ids, [class_id, class_id + 1])
            levels.append(_average(true[start:stop], ignored[start:stop], objects))
        by_level = np.mean(levels, axis=0)
        return Scores(float(by_level.mean()), float(by_level[0]))

    def gains(self) -> Float64Array:
        """(N,) AP of each picture on its own at the last way, less that at the first."""
        return np.array([_gain(picture) for picture in self._pictures])


def one_for_each(ways: npt.ArrayLike, count: int) -> Int64Array:
    """Ways (N,) as integers.

    Raises:
        InputError: there are not ``count``.
    """
    chosen = np.asarray(ways, np.int64)
    if chosen.shape != (count,):
        raise InputError(f"ways are {chosen.shape}, expected ({count},)")
    return chosen


def _gain(picture: PictureMatches) -> float:
    alone = RoutedPrecision([picture])
    last, first = (alone.at([way]).primary or 0.0 for way in (len(picture.exits) - 1, 0))
    return last - first


def _average(true: BoolArray, ignored: BoolArray, objects: int) -> Float64Array:
    """(10,) precision of one class at each IoU threshold, mean over 101 recalls."""
    found = true.cumsum(axis=0)
    false = (~true & ~ignored).cumsum(axis=0)
    precision = found / (found + false + np.spacing(1))
    # the best precision at this recall or a higher one
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    padded = np.concatenate([envelope, np.zeros((1, _LEVELS))])
    recall = found / objects
    columns = [
        padded[np.searchsorted(recall[:, level], RECALLS, side="left"), level].mean()
        for level in range(_LEVELS)
    ]
    return np.array(columns)
