"""Greedy class-wise non-maximum suppression, and the overlap of boxes that it goes by."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dyninfer.types import BoolArray, Float32Array, Int64Array

CHUNK = 1024  # candidates settled at a time: what is computed for them stays in a core's cache
_BLOCK = 64  # candidates compared with all others at a time: a row of their overlaps is a uint64
FEW = 256  # so many OpenCV settles sooner than NumPy gets going
_DOUBT = 1e-6  # relative: what float32 finds closer to the limit than this, float64 decides
_SMALLEST, _LARGEST = 1e-12, 1e30  # areas that float32 and OpenCV take for what they are

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class _Candidates(NamedTuple):
    """Boxes as bounds (5, n): left, top, right, bottom, area; classes (n,); ranks (n,), 0 best."""

    bounds: FloatArray
    classes: npt.NDArray[np.signedinteger[Any]]
    ranks: Int64Array

    def take(self, positions: npt.NDArray[np.intp]) -> _Candidates:
        bounds, classes = self.bounds.take(positions, 1), self.classes.take(positions)
        return _Candidates(bounds, classes, self.ranks.take(positions))

    def where(self, chosen: BoolArray) -> _Candidates:
        return self.take(chosen.nonzero()[0])

    def as_type(self, dtype: npt.DTypeLike) -> _Candidates:
        return self._replace(bounds=self.bounds.astype(dtype, copy=False))

    def slice(self, start: int, stop: int | None = None) -> _Candidates:
        part = slice(start, stop)
        return _Candidates(self.bounds[:, part], self.classes[part], self.ranks[part])


def nms(
    boxes_xyxy: Float32Array, class_ids: Int64Array, iou: float, max_detections: int
) -> Int64Array:
    """Greedy class-wise non-maximum suppression.

    The candidates are settled in chunks of falling confidence, and the search ends when enough is
    kept. Overlaps are compared in float32, and again in float64 where float32 leaves a doubt; the
    last few of a chunk are OpenCV's to decide, whose overlaps are rounded to float32.

    Args:
        boxes_xyxy: (M, 4), best first, each finite and with an area.
        class_ids: (M,), from 0 up.
        iou: overlap above which the worse box goes.
        max_detections: at most so many are kept.

    Returns:
        Indices of what is kept, best first.
    """
    if len(boxes_xyxy) < 2:  # as in many a picture: nothing overlaps
        return np.arange(min(len(boxes_xyxy), max_detections))
    return _nms(boxes_xyxy, class_ids, iou, max_detections)


@np.errstate(over="ignore")  # what becomes infinite is beyond every limit all the same
def _nms(
    boxes_xyxy: Float32Array, class_ids: Int64Array, iou: float, max_detections: int
) -> Int64Array:
    if class_ids.max(initial=0) < 1 << 15:
        class_ids = class_ids.astype(np.int16)  # sorted by digits, and compared faster
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes_xyxy), CHUNK):
        ranks = np.arange(start, min(start + CHUNK, len(boxes_xyxy)))
        chunk = _candidates(boxes_xyxy, class_ids, ranks)
        if iou >= _DOUBT and _SMALLEST < chunk.bounds[4].min() <= chunk.bounds[4].max() < _LARGEST:
            chunk = chunk.as_type(np.float32)
        if len(kept):
            earlier = _candidates(boxes_xyxy, class_ids, kept).as_type(chunk.bounds.dtype)
            chunk = _unsuppressed(chunk, earlier, iou)
        found = _settle(chunk, iou)
        found.sort()
        kept = np.concatenate([kept, found])
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def _candidates(boxes_xyxy: Float32Array, class_ids: Int64Array, ranks: Int64Array) -> _Candidates:
    """Those of the given ranks, in float64."""
    bounds = np.empty((5, len(ranks)))
    bounds[:4] = boxes_xyxy.take(ranks, 0).T
    sides = bounds[2:4] - bounds[:2]
    np.multiply(sides[0], sides[1], out=bounds[4])
    return _Candidates(bounds, class_ids.take(ranks), ranks)


def _settle(candidates: _Candidates, iou: float) -> Int64Array:
    """Ranks of what is kept, in any order; the candidates are sorted by rank."""
    few = FEW if candidates.bounds.dtype == np.float32 else 0
    kept: list[Int64Array] = []
    left = gone = len(candidates.ranks)
    if left > few:
        candidates = candidates.take(candidates.classes.argsort(kind="stable"))
    while left > few and gone > _BLOCK // 2:
        leaders, candidates = _follow_leaders(candidates, iou)
        kept.append(leaders)
        gone, left = left - len(candidates.ranks), len(candidates.ranks)
    if left > few:
        candidates = candidates.take(candidates.ranks.argsort())
    while len(candidates.ranks) > few:
        best, candidates = _settle_block(candidates, iou)
        kept.append(best)
    kept.append(_settle_few(candidates, iou))
    return np.concatenate(kept)


def _settle_few(candidates: _Candidates, iou: float) -> Int64Array:
    """Ranks of what is kept, by OpenCV, whose time grows with the square of their number.

    The candidates may be in any order.
    """
    ranks = candidates.ranks
    if not len(ranks):
        return ranks
    corners = candidates.bounds[:4].astype(np.float64)
    corners[2:] -= corners[:2]
    # OpenCV keeps classes apart by an offset that presumes coordinates from 0 up
    corners[:2] -= corners[:2].min()
    # OpenCV orders by score and drops those not above its own threshold: falling numbers keep
    # every candidate, and the order among equal confidences
    scores: Any = (ranks.max() + 1 - ranks).astype(np.float32)
    classes: Any = candidates.classes.astype(np.int32)
    rectangles: Any = np.ascontiguousarray(corners.T)
    chosen = cv2.dnn.NMSBoxesBatched(rectangles, scores, classes, 0.0, iou)
    return ranks.take(np.asarray(chosen, np.int64).reshape(-1))


def _follow_leaders(candidates: _Candidates, iou: float) -> tuple[Int64Array, _Candidates]:
    """Ranks of the best of each class, which are kept, and what they leave of their classes.

    The candidates are sorted by class, then by rank. This is one pass over them, whatever the
    number of classes, but finds one box of a class only.
    """
    is_leader = np.empty(len(candidates.ranks), np.bool_)
    is_leader[0] = True
    np.not_equal(candidates.classes[1:], candidates.classes[:-1], out=is_leader[1:])
    leaders = is_leader.nonzero()[0]
    own_leader = leaders.take(is_leader.cumsum() - 1)
    goes = _exceeds(candidates.bounds.take(own_leader, 1), candidates.bounds, iou)
    goes |= is_leader
    return candidates.ranks.take(leaders), candidates.where(~goes)


def _settle_block(candidates: _Candidates, iou: float) -> tuple[Int64Array, _Candidates]:
    """Ranks of what is kept of the first block, and what that leaves of the candidates behind it.

    The candidates are sorted by rank.
    """
    block, behind = candidates.slice(0, _BLOCK), candidates.slice(_BLOCK)
    suppresses = _suppresses(block, candidates, iou)
    bits = np.zeros((len(block.ranks), _BLOCK // 8), np.uint8)
    packed = np.packbits(suppresses[:, :_BLOCK], axis=1, bitorder="little")
    bits[:, : packed.shape[1]] = packed
    gone, kept = 0, []
    for position, row in enumerate(bits.view("<u8").ravel().tolist()):
        if not gone >> position & 1:
            kept.append(position)
            gone |= row
    if len(behind.ranks):
        goes = np.logical_or.reduce(suppresses.take(kept, 0)[:, _BLOCK:], axis=0)
        behind = behind.where(~goes)
    return block.ranks.take(kept), behind


def _unsuppressed(candidates: _Candidates, kept: _Candidates, iou: float) -> _Candidates:
    """The candidates that no kept box suppresses."""
    for start in range(0, len(kept.ranks), _BLOCK):
        block = kept.slice(start, start + _BLOCK)
        goes = np.logical_or.reduce(_suppresses(block, candidates, iou), axis=0)
        candidates = candidates.where(~goes)
    return candidates


def _suppresses(block: _Candidates, candidates: _Candidates, iou: float) -> BoolArray:
    """(b, n): whether boxes of a block and candidates are of one class and overlap too much."""
    exceeds = _exceeds(block.bounds[:, :, None], candidates.bounds[:, None], iou)
    exceeds &= block.classes[:, None] == candidates.classes
    return exceeds


def _exceeds(a: FloatArray, b: FloatArray, iou: float) -> BoolArray:
    """Whether overlaps exceed ``iou``, of bounds (5, ...) that pair as NumPy broadcasts them.

    Intersection / union > iou where intersection > iou / (1 + iou) * (sum of both areas). Sums and
    products of positive float32 numbers err by less than the doubt.
    """
    shape = (*a.shape[1:-1], b.shape[-1])
    width, height, limit = np.empty((3, *shape), b.dtype)
    _intersect(a, b, 0, width, limit)
    _intersect(a, b, 1, height, limit)
    possible = width > 0
    width *= height
    limit[...] = a[4]
    limit += b[4]
    limit *= iou / (1 + iou) * (1 - _DOUBT)
    possible &= width > limit
    limit *= (1 + _DOUBT) / (1 - _DOUBT)
    sure: BoolArray = width > limit
    sure &= possible
    if np.count_nonzero(possible) != np.count_nonzero(sure):
        _decide(sure, possible & ~sure, a, b, iou)
    return sure


def _intersect(
    a: FloatArray, b: FloatArray, axis: int, length: FloatArray, scratch: FloatArray
) -> None:
    """Write the lengths of the intersections along an axis, negative where there is none.

    Each minimum and maximum starts from a copy: NumPy is slow at those of one number with many.
    """
    length[...] = a[2 + axis]
    np.minimum(length, b[2 + axis], out=length)
    scratch[...] = a[axis]
    np.maximum(scratch, b[axis], out=scratch)
    length -= scratch


def _decide(
    exceeds: BoolArray, doubtful: BoolArray, a: FloatArray, b: FloatArray, iou: float
) -> None:
    """Set ``exceeds`` where it is doubtful, by float64."""
    at = doubtful.nonzero()
    first, second = (
        np.array([np.broadcast_to(line, doubtful.shape)[at] for line in bounds[:4]], np.float64)
        for bounds in (a, b)
    )
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = sides[0] * sides[1]
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (first, second)]
    exceeds[at] = intersection / (areas[0] + areas[1] - intersection) > iou


def pairwise_iou(a: Float32Array, b: Float32Array) -> Float32Array:
    """Intersection over union of every box of ``a`` (M, 4) with every box of ``b`` (K, 4)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = [np.clip(box[:, 2:] - box[:, :2], 0, None).prod(axis=1) for box in (a, b)]
    union = areas[0][:, None] + areas[1][None] - intersection
    return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0).astype(np.float32)
