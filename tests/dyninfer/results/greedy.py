"""The definition of class-wise suppression, box by box in float64, and boxes to try it on."""

from __future__ import annotations

import numpy as np


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) with others (n, 4)."""
    box, others = box.astype(np.float64), others.astype(np.float64)
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = np.clip(sides, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - intersection
    return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0)


def greedy(boxes: np.ndarray, classes: np.ndarray, iou: float, limit: int) -> list[int]:
    """Indices of what is kept of boxes (n, 4) that are sorted best first."""
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        goes = (overlaps(boxes[best], boxes[left]) > iou) & (classes[left] == classes[best])
        left = left[~goes]
    return kept


def candidates(
    count: int, seed: int, *, classes: int, spread: float, largest: float
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    corner = generator.uniform(-spread, spread, (count, 2))
    size = generator.uniform(largest / 20, largest, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return boxes, generator.integers(0, classes, count)


def on_a_grid(count: int, seed: int, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Small whole-numbered boxes: many are equal, and many overlap by exactly a half or a third."""
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 6, (count, 2))
    size = generator.integers(1, 5, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return boxes, generator.integers(0, classes, count)
