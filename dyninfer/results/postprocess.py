"""From a head's outputs to the detections of one image."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.results.candidates import best_label, every_label
from dyninfer.results.nms import nms
from dyninfer.types import BoolArray, Float32Array, Int64Array

MAX_CANDIDATES = 30_000


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

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

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
        find = every_label if self.several_labels else best_label
        found = find(class_scores, self.confidence)
        boxes = boxes_xyxy.take(found.anchors, 0).astype(np.float32, copy=False)
        usable = _usable(boxes)
        if len(boxes) < 2:  # as in many a picture: nothing to sort, nothing that overlaps
            return boxes[usable], found.confidences[usable], found.class_ids[usable]
        order = _best_first(found.confidences, usable)
        boxes = boxes.take(order, 0)
        kept = nms(boxes, found.class_ids.take(order), self.iou, self.max_detections)
        chosen = order.take(kept)
        return boxes.take(kept, 0), found.confidences.take(chosen), found.class_ids.take(chosen)


EVALUATION = Postprocess(confidence=0.001, iou=0.65, several_labels=True)
"""As the published COCO evaluations have it: a low confidence, several labels for a box."""


def _usable(boxes: Float32Array) -> BoolArray:
    """(M,): which boxes are finite and have an area."""
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    usable: BoolArray = right > left
    usable &= bottom > top
    finite = np.isfinite(boxes)
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
