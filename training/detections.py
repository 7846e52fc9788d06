"""From raw predictions to detections, as the published evaluation does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MIN_CONFIDENCE = 0.001
MAX_IOU = 0.65
MAX_CANDIDATES = 2000
MAX_KEPT = 300


@dataclass(frozen=True)
class Columns:
    """Detections of one image: boxes (D, 4) in pixels, confidences (D,), class_ids (D,)."""

    boxes_xyxy: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]


def decode(
    levels: Sequence[Tensor], anchor_grid: Tensor, strides: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Boxes (N, A, 4) in xyxy pixels and class scores (N, A, C) of raw predictions.

    Centre (2 s_xy - 0.5 + cell) * stride, size (2 s_wh)^2 * anchor, s the sigmoid.
    """
    boxes, scores = [], []
    for raw, anchors, stride in zip(levels, anchor_grid, strides, strict=True):
        images, _, height, width = raw.shape
        count = anchors.shape[1]
        s = raw.reshape(images, count, -1, height, width).permute(0, 1, 3, 4, 2).sigmoid()
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = (2 * s[..., :2] - 0.5 + torch.stack([column, row], 2)) * stride
        half = (2 * s[..., 2:4]).square() * anchors.reshape(1, count, 1, 1, 2) / 2
        boxes.append(torch.cat([centre - half, centre + half], 4).reshape(images, -1, 4))
        scores.append((s[..., 4:5] * s[..., 5:]).reshape(images, boxes[-1].shape[1], -1))
    return torch.cat(boxes, 1), torch.cat(scores, 1)


def detections(
    levels: Sequence[Tensor], anchor_grid: Tensor, strides: Sequence[int]
) -> list[Columns]:
    """Detections of every image: several classes per box, class-wise suppression."""
    boxes, scores = decode(levels, anchor_grid, strides)
    pairs = zip(boxes.numpy(), scores.numpy(), strict=True)
    return [_of_image(image_boxes, image_scores) for image_boxes, image_scores in pairs]


def _of_image(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> Columns:
    place, class_ids = np.nonzero(scores > MIN_CONFIDENCE)
    confidences = scores[place, class_ids]
    best = np.argsort(-confidences, kind="stable")[:MAX_CANDIDATES]
    candidates, confidences, class_ids = boxes[place[best]], confidences[best], class_ids[best]
    if not len(candidates):
        return Columns(candidates, confidences, class_ids)
    xywh = np.concatenate([candidates[:, :2], candidates[:, 2:] - candidates[:, :2]], 1)
    survivors = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), confidences.tolist(), class_ids.tolist(), MIN_CONFIDENCE, MAX_IOU
    )
    kept = np.asarray(survivors, np.int64)
    kept = kept[np.argsort(-confidences[kept], kind="stable")][:MAX_KEPT]
    return Columns(candidates[kept], confidences[kept], class_ids[kept])
