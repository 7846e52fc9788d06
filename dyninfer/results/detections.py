"""What a detector finds in one image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.results.answer import answer_document
from dyninfer.types import Float32Array, Int64Array

_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes_xyxy: (D, 4) float32, left, top, right, bottom in pixels of the original image.
        confidences: (D,) float32 in [0, 1].
        class_ids: (D,) int64, index into the bundle's class names.
        class_names: D names, one per detection.
        easiness: the router's output in [0, 1], or None where no router ran.
        exit_index: the way that the image took, 0 for the first exit or branch.
        degraded: True when the route was not the one the policy asked for.
        timings_ms: stage, or a step of :mod:`dyninfer.spans` -> milliseconds: the image's share of
            what its batch took. Nothing counts twice; what is left of a call's time is overhead.
    """

    boxes_xyxy: Float32Array
    confidences: Float32Array
    class_ids: Int64Array
    class_names: tuple[str, ...]
    easiness: float | None = None
    exit_index: int = 0
    degraded: bool = False
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.class_names)
        self._check("boxes_xyxy", self.boxes_xyxy, (count, 4), _FLOAT32)
        self._check("confidences", self.confidences, (count,), _FLOAT32)
        self._check("class_ids", self.class_ids, (count,), _INT64)

    def _check(
        self, name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"{name} is {array.dtype} {array.shape}, "
                f"expected {dtype} {shape} for {len(self.class_names)} class names"
            )

    def __len__(self) -> int:
        return len(self.class_names)

    def rows(self) -> Iterator[tuple[Float32Array, np.float32, np.int64, str]]:
        """Box, confidence, class id and class name of each, best first."""
        return zip(self.boxes_xyxy, self.confidences, self.class_ids, self.class_names, strict=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; boxes rounded to 1/100 pixel."""
        found = [
            {
                "box_xyxy": [round(float(value), 2) for value in box],
                "confidence": round(float(confidence), 5),
                "class_id": int(class_id),
                "class_name": name,
            }
            for box, confidence, class_id, name in self.rows()
        ]
        return answer_document(self, "detections", found)
