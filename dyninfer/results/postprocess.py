"""From a head's outputs to the detections of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.results.candidates import best_label, every_label
from dyninfer.results.nms import nms
from dyninfer.types import BoolArray, Float32Array, Int64Array, as_float, is_whole, shown

MAX_CANDIDATES = 30_000
FARTHEST = 1e6
"""Pixels: no box of a working detector lies so far out, and fp16's overflow does."""


@dataclass(frozen=True)
class Postprocess:
    """What counts as a detection.

    Attributes:
        confidence: candidates must be above it, in [0, 1].
        iou: a box is dropped when it overlaps a better one of its class by more than this.
        max_detections: most detections kept for an image.
        several_labels: False takes the best class of every box, True all classes above
            ``confidence``, as the published COCO evaluation does (with 0.001 and IoU 0.65).

    Raises:
        InputError: a value is outside its range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300
    several_labels: bool = False

    def __post_init__(self) -> None:
        for name in ("confidence", "iou"):
            value: Any = getattr(self, name)
            if not 0 <= as_float(value) <= 1:
                raise InputError(f"{name} is {shown(value)}, expected a number from 0 to 1")
        if not is_whole(self.max_detections, 1):
            raise InputError(
                f"max_detections is {shown(self.max_detections)}, expected a whole number from 1 up"
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
        return self.find(boxes_xyxy, class_scores)[:3]

    def find(self, boxes_xyxy: Float32Array, class_scores: Float32Array) -> Found:
        """As a call of this object, with what was left out because it is broken."""
        candidates = (every_label if self.several_labels else best_label)(
            class_scores, self.confidence
        )
        boxes = boxes_xyxy.take(candidates.anchors, 0).astype(np.float32, copy=False)
        confidences, class_ids = candidates.confidences, candidates.class_ids
        if len(boxes) < 2:  # as in many a picture: nothing to sort, nothing that overlaps
            if not len(boxes) or _is_usable(*boxes.tolist()[0]):
                return Found(boxes, confidences, class_ids, candidates.broken, 0)
            return Found(boxes[:0], confidences[:0], class_ids[:0], candidates.broken, 1)
        usable = _usable(boxes)
        dropped = len(boxes) - int(np.count_nonzero(usable))
        order = _best_first(confidences, usable)
        boxes = boxes.take(order, 0)
        kept = nms(boxes, class_ids.take(order), self.iou, self.max_detections)
        chosen = order.take(kept)
        found = boxes.take(kept, 0), confidences.take(chosen), class_ids.take(chosen)
        return Found(*found, candidates.broken, dropped)


class Found(NamedTuple):
    """Detections of one image, and what could not be any.

    ``broken_scores`` were no numbers up to 1, ``unusable_boxes`` not finite or without an area.
    """

    boxes_xyxy: Float32Array
    confidences: Float32Array
    class_ids: Int64Array
    broken_scores: int
    unusable_boxes: int


EVALUATION = Postprocess(confidence=0.001, iou=0.65, several_labels=True)
"""As the published COCO evaluations have it: a low confidence, several labels for a box."""


def _is_usable(left: float, top: float, right: float, bottom: float) -> bool:
    """As :func:`_usable`, of one box; false for NaN."""
    return -FARTHEST < left < right < FARTHEST and -FARTHEST < top < bottom < FARTHEST


def _usable(boxes: Float32Array) -> BoolArray:
    """(M,): which boxes are finite, not beyond :data:`FARTHEST`, and have an area."""
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    usable: BoolArray = right > left
    usable &= bottom > top
    finite = np.abs(boxes) < FARTHEST
    if np.count_nonzero(finite) < finite.size:  # several times as quick as all() for few
        usable &= finite.all(axis=1)
    return usable


def _best_first(confidences: Float32Array, usable: BoolArray) -> Int64Array:
    """Positions of the usable candidates by falling confidence, at most ``MAX_CANDIDATES``.

    Equal ones keep their order. The bits of positive float32 numbers rise with their values, so
    that value and position fit one integer, which sorts several times as fast as a stable
    sorting of the values.
    """
    keys: npt.NDArray[np.uint64] = (~confidences.view(np.uint32)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(keys), dtype=np.uint64)
    if np.count_nonzero(usable) < len(usable):
        keys = keys[usable]
    keys.sort()
    positions: Int64Array = (keys[:MAX_CANDIDATES] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return positions
