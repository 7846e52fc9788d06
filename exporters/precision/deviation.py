"""How far a converted stage's outputs are from float32, as one number for each output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dyninfer.types import AnyArray, Float64Array, Int64Array

CANDIDATES = 100  # the surest of a picture: what lies below never becomes a detection
_SMALLEST_SIDE = 1e-3  # pixels; keeps an empty box from dividing by zero


def deviations(
    reference: Mapping[str, AnyArray], found: Mapping[str, AnyArray]
) -> dict[str, float]:
    """Deviation of a converted stage's outputs, 0 where equal; infinite where one is not finite.

    - ``boxes_xyxy``: mean of 1 - IoU over the candidates.
    - ``class_scores``: root mean square of the error over the candidates, relative to the scores'.
    - ``easiness``: largest error.
    - anything else, features and logits: root mean square of the error relative to the values'.

    Candidates are the boxes of ``reference`` with the largest class scores of every picture.
    """
    top = _candidates(reference["class_scores"]) if "class_scores" in reference else None
    return {
        name: _deviation(name, array.astype(np.float64), found[name].astype(np.float64), top)
        for name, array in reference.items()
    }


def _deviation(
    name: str, reference: Float64Array, found: Float64Array, top: Int64Array | None
) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    if name == "easiness":
        return float(np.abs(found - reference).max(initial=0.0))
    if top is not None and name in ("boxes_xyxy", "class_scores"):
        reference, found = (np.take_along_axis(a, top[..., None], 1) for a in (reference, found))
        if name == "boxes_xyxy":
            return float(1 - paired_iou(reference, found).mean())
    scale = float(np.sqrt((reference**2).mean()))
    error = float(np.sqrt(((found - reference) ** 2).mean()))
    return error / scale if scale else error


def _candidates(scores: AnyArray) -> Int64Array:
    """(N, K) rows with the largest class scores of every picture, of scores (N, A, C)."""
    best = scores.max(-1)
    count = min(CANDIDATES, best.shape[1])
    return np.argpartition(-best, count - 1, 1)[:, :count]


def paired_iou(boxes: Float64Array, others: Float64Array) -> Float64Array:
    """Intersection over union of boxes (..., 4) and others (..., 4), pair by pair."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clip(_SMALLEST_SIDE).prod(-1) for b in (boxes, others)]
    return np.asarray(shared / (areas[0] + areas[1] - shared).clip(_SMALLEST_SIDE**2)).clip(0, 1)
