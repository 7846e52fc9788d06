"""From a head's outputs to the detections of one image."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import cv2
import numpy as np

from dyninfer.errors import InputError
from dyninfer.types import BoolArray, Float32Array, Int64Array

MAX_CANDIDATES = 30_000
_BLOCK = 512  # OpenCV's NMS is quadratic; blocks of this size cost about 1 ms each


@dataclass(frozen=True)
class Postprocess:
    """What counts as a detection.

    Attributes:
        confidence: candidates must be above it, in [0, 1].
        iou: a box is dropped when it overlaps a better one of its class by more than this.
        max_detections: at most so many are kept per image.
        several_labels: False takes the best class of every box, True all classes above
            ``confidence``, as the published COCO evaluation does (with 0.001 and IoU 0.65).

    Raises:
        InputError: a value is outside its range.
    """

    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300
    several_labels: bool = False

    def __post_init__(self) -> None:
        for name in ("confidence", "iou"):
            value: Any = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise InputError(f"{name} is {value!r}, expected a number from 0 to 1")
        if not isinstance(self.max_detections, int) or self.max_detections < 1:
            raise InputError(
                f"max_detections is {self.max_detections!r}, expected a whole number from 1 up"
            )

    def __call__(
        self, boxes_xyxy: Float32Array, class_scores: Float32Array
    ) -> tuple[Float32Array, Float32Array, Int64Array]:
        """Candidates of one image -> its detections, best first.

        Args:
            boxes_xyxy: (A, 4) float32.
            class_scores: (A, C) float32 in [0, 1].

        Returns:
            boxes (D, 4) float32, confidences (D,) float32, class ids (D,) int64.
        """
        anchors, classes = self._candidates(class_scores)
        confidences = class_scores[anchors, classes]
        usable = _usable(boxes_xyxy[anchors])
        anchors, classes, confidences = anchors[usable], classes[usable], confidences[usable]
        order = np.argsort(-confidences, kind="stable")[:MAX_CANDIDATES]
        anchors, classes, confidences = anchors[order], classes[order], confidences[order]
        boxes = boxes_xyxy[anchors].astype(np.float32, copy=False)
        kept = nms(boxes, classes, self.iou, self.max_detections)
        return boxes[kept], confidences[kept], classes[kept]

    def _candidates(self, class_scores: Float32Array) -> tuple[Int64Array, Int64Array]:
        """Which (anchor, class) pairs are above the confidence."""
        if self.several_labels:
            anchors, classes = np.nonzero(class_scores > self.confidence)
            return anchors, classes
        (anchors,) = np.nonzero(class_scores.max(axis=1, initial=0) > self.confidence)
        return anchors, class_scores[anchors].argmax(axis=1)


def _usable(boxes: Float32Array) -> BoolArray:
    """Finite boxes with an area; OpenCV takes two without one for duplicates."""
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return np.asarray(has_area & np.isfinite(boxes).all(axis=1), np.bool_)


def nms(
    boxes_xyxy: Float32Array,
    class_ids: Int64Array,
    iou: float,
    max_detections: int,
) -> Int64Array:
    """Greedy class-wise non-maximum suppression by OpenCV, in blocks.

    The candidates are taken in blocks of falling confidence. What a kept box of an earlier block
    suppresses is removed first, OpenCV settles the block, and the search ends when enough is
    kept. The result is that of one pass over all candidates, which in OpenCV takes seconds for
    30,000 of them.

    Args:
        boxes_xyxy: (M, 4), best first.
        class_ids: (M,).
        iou: overlap above which the worse box goes.
        max_detections: at most so many are kept.

    Returns:
        Indices of what is kept, best first.
    """
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes_xyxy), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes_xyxy)))
        if len(kept):
            block = block[~_suppressed(boxes_xyxy, class_ids, block, kept, iou)]
        if len(block):
            chosen = _settle(boxes_xyxy[block], class_ids[block], iou)
            kept = np.concatenate([kept, block[chosen]])
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def _settle(boxes: Float32Array, class_ids: Int64Array, iou: float) -> Int64Array:
    """Non-maximum suppression of one block by OpenCV: indices of what is kept, rising."""
    corners = boxes.astype(np.float64)  # float32 would lose pixels beside a far-off box
    # OpenCV keeps classes apart by an offset that presumes coordinates from 0 up
    rectangles: Any = np.concatenate(
        [corners[:, :2] - corners.min(), corners[:, 2:] - corners[:, :2]], 1
    )
    # OpenCV orders by score and drops those not above its own threshold: ranks keep every
    # candidate, and the order among equal confidences
    ranks: Any = np.arange(len(boxes), 0, -1, dtype=np.float32)
    classes: Any = class_ids.astype(np.int32)
    chosen = cv2.dnn.NMSBoxesBatched(rectangles, ranks, classes, 0.0, iou)
    return np.sort(np.asarray(chosen, np.int64).reshape(-1))


def _suppressed(
    boxes: Float32Array,
    class_ids: Int64Array,
    block: Int64Array,
    kept: Int64Array,
    iou: float,
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which boxes of the block overlap a kept box of their class by more than ``iou``."""
    overlap = pairwise_iou(boxes[block], boxes[kept])
    same = class_ids[block][:, None] == class_ids[kept][None]
    return ((overlap > iou) & same).any(axis=1)  # type: ignore[no-any-return]  # numpy's any


def pairwise_iou(a: Float32Array, b: Float32Array) -> Float32Array:
    """Intersection over union of every box of ``a`` (M, 4) with every box of ``b`` (K, 4)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = [np.clip(box[:, 2:] - box[:, :2], 0, None).prod(axis=1) for box in (a, b)]
    union = areas[0][:, None] + areas[1][None] - intersection
    return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0).astype(np.float32)
