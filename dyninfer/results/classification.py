"""What a classifier says of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.results.answer import answer_document
from dyninfer.types import Float32Array, Int64Array


@dataclass(frozen=True, eq=False)
class Classification:
    """The likeliest classes of one image, best first.

    Attributes:
        class_ids: (K,) int64, index into the bundle's class names.
        confidences: (K,) float32 in [0, 1]: the softmax over all classes, so they add up to 1
            only where K is all of them.
        class_names: K names.
        easiness: the router's output in [0, 1], or None where no router ran.
        exit_index: the way that the image took, 0 for the first exit or branch.
        degraded: True when the route was not the one the policy asked for.
        timings_ms: as :class:`dyninfer.Detections` has them.
    """

    class_ids: Int64Array
    confidences: Float32Array
    class_names: tuple[str, ...]
    easiness: float | None = None
    exit_index: int = 0
    degraded: bool = False
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = (len(self.class_names),)
        if self.class_ids.shape != count or self.confidences.shape != count:
            raise InputError(
                f"class_ids {self.class_ids.shape} and confidences {self.confidences.shape} do not "
                f"fit {count[0]} class names"
            )

    def __len__(self) -> int:
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        rows = zip(self.class_ids, self.confidences, self.class_names, strict=True)
        classes = [
            {
                "class_id": int(class_id),
                "class_name": name,
                "confidence": round(float(confidence), 5),
            }
            for class_id, confidence, name in rows
        ]
        return answer_document(self, "classes", classes)


@dataclass(frozen=True)
class TopK:
    """How many classes a :class:`Classification` holds.

    Raises:
        InputError: ``count`` is no whole number from 1 up.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    count: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise InputError(f"count is {self.count!r}, expected a whole number from 1 up")

    def __call__(self, logits: npt.NDArray[Any]) -> tuple[Int64Array, Float32Array]:
        """Logits (C,) -> the best class ids (K,) and their softmax (K,), best first.

        Of equal logits the first class comes first; one that is NaN comes last, with confidence 0.
        """
        values = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64))
        order = np.argsort(-values, kind="stable")[: self.count]
        largest = values[order[0]]
        weights = np.exp(values - largest) if np.isfinite(largest) else np.zeros_like(values)
        confidences = weights[order] / max(float(weights.sum()), 1.0)
        return order.astype(np.int64), confidences.astype(np.float32)
