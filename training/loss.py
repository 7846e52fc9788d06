"""Detection loss of one YOLOv7-style head: where objects are, that they are there, what they are.

Matching follows YOLOv5 and YOLOv7: an anchor takes an object when neither side differs by a factor
of 4 or more, in the cell of the object's centre and in the two cells nearest to that centre.
Boxes: 1 - CIoU (Zheng et al., "Enhancing Geometric Factors in Model Learning and Inference for
Object Detection and Instance Segmentation", 2020, eq. 8 to 11). Objectness: binary cross entropy
with the IoU as target. Classes: binary cross entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SIDE_RATIO = 4.0


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three terms, and of objectness on each level (small objects first)."""

    box: float = 0.2
    objectness: float = 0.25
    classes: float = 0.4
    levels: tuple[float, ...] = (4.0, 1.0, 0.4)


@dataclass(frozen=True)
class Targets:
    """Objects of a batch: one row each.

    Attributes:
        image_ids: (D,) int64, which image of the batch.
        class_ids: (D,) int64.
        boxes_cxcywh: (D, 4) float32, pixels.
    """

    image_ids: Tensor
    class_ids: Tensor
    boxes_cxcywh: Tensor

    def of_image(self, image: int) -> Targets:
        """The objects of one image, as a batch of one."""
        chosen = self.image_ids == image
        return Targets(
            torch.zeros_like(self.image_ids[chosen]),
            self.class_ids[chosen],
            self.boxes_cxcywh[chosen],
        )


@dataclass(frozen=True)
class Matches:
    """Which prediction of a level is to find which object: six columns of equal length.

    ``target`` indexes the objects; ``image``, ``anchor``, ``row`` and ``column`` the predictions.
    """

    target: Tensor
    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


def match(targets: Targets, anchors_px: Tensor, stride: int, height: int, width: int) -> Matches:
    """Match objects with cells and anchors (A, 2) of a level of ``height`` x ``width`` cells."""
    sides = targets.boxes_cxcywh[:, None, 2:]
    ratio = torch.maximum(sides / anchors_px, anchors_px / sides).amax(2)
    target, anchor = (ratio < MAX_SIDE_RATIO).nonzero(as_tuple=True)
    centre = targets.boxes_cxcywh[target, :2] / stride
    cell = centre.floor()
    towards = torch.where(centre - cell < 0.5, -1.0, 1.0)  # the nearer neighbour on each axis
    moves = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    cells = (cell[None] + moves[:, None] * towards[None]).long().reshape(-1, 2)
    inside = (cells >= 0).all(1) & (cells[:, 0] < width) & (cells[:, 1] < height)
    target, anchor = target.repeat(3)[inside], anchor.repeat(3)[inside]
    column, row = cells[inside].unbind(1)
    return Matches(target, targets.image_ids[target], anchor, row, column)


def ciou(boxes: Tensor, others: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of paired boxes (D, 4) in cx, cy, w, h: (D,), at most 1."""
    low = torch.minimum(boxes[:, :2] - boxes[:, 2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.maximum(boxes[:, :2] + boxes[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2)
    enclosing = high - low
    # along an axis, overlap + enclosing side = sum of the sides, where there is overlap
    overlap = (boxes[:, 2:] + others[:, 2:] - enclosing).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + others[:, 2:].prod(1) - overlap
    iou = overlap / (union + eps)
    distance = (boxes[:, :2] - others[:, :2]).square().sum(1) / (enclosing.square().sum(1) + eps)
    slant = torch.atan(boxes[:, 2] / (boxes[:, 3] + eps))
    other_slant = torch.atan(others[:, 2] / (others[:, 3] + eps))
    shape = (4 / math.pi**2) * (slant - other_slant).square()
    with torch.no_grad():
        alpha = shape / (1 - iou + shape + eps)
    return iou - distance - alpha * shape


def detection_loss(
    levels: Sequence[Tensor],
    targets: Targets,
    anchor_grid: Tensor,
    strides: Sequence[int],
    weights: LossWeights,
) -> Tensor:
    """Loss of one head on a batch, a scalar; each of its terms is a mean.

    Boxes and classes count by the predictions that are to find an object, objectness by all.

    Args:
        levels: raw predictions, (N, anchors * (5 + classes), H, W) each.
        targets: the objects in the batch.
        anchor_grid: (levels, 1, anchors, 1, 1, 2), pixels, as the Detect module holds it.
        strides: pixels per cell of each level.
        weights: of the terms.
    """
    total = levels[0].new_zeros(())
    for index, (raw, stride) in enumerate(zip(levels, strides, strict=True)):
        anchors_px = anchor_grid[index].reshape(-1, 2)
        total = total + _level_loss(
            raw, targets, anchors_px, stride, weights.levels[index], weights
        )
    return total


def _level_loss(
    raw: Tensor,
    targets: Targets,
    anchors_px: Tensor,
    stride: int,
    objectness_weight: float,
    weights: LossWeights,
) -> Tensor:
    images, _, height, width = raw.shape
    raw = raw.reshape(images, len(anchors_px), -1, height, width)
    found = match(targets, anchors_px, stride, height, width)
    wanted = raw.new_zeros(raw[:, :, 4].shape)  # contiguous, whatever the layout of raw
    loss = raw.new_zeros(())
    if len(found.target):
        chosen = raw[found.image, found.anchor, :, found.row, found.column]
        overlap = ciou(
            _decode(chosen, found, anchors_px, stride), targets.boxes_cxcywh[found.target]
        )
        loss = loss + weights.box * (1 - overlap).mean()
        labels = F.one_hot(targets.class_ids[found.target], chosen.shape[1] - 5).to(chosen)
        loss = loss + weights.classes * F.binary_cross_entropy_with_logits(chosen[:, 5:], labels)
        place = (found.image * len(anchors_px) + found.anchor) * height + found.row
        # two objects may share a prediction: it shall be as sure as the better of the two is good
        wanted.view(-1).scatter_reduce_(
            0, place * width + found.column, overlap.detach().clamp(min=0), "amax"
        )
    objectness = F.binary_cross_entropy_with_logits(raw[:, :, 4], wanted)
    return loss + weights.objectness * objectness_weight * objectness


def _decode(chosen: Tensor, found: Matches, anchors_px: Tensor, stride: int) -> Tensor:
    """Boxes (D, 4) in cx, cy, w, h pixels of the raw predictions (D, 5 + classes)."""
    cells = torch.stack([found.column, found.row], 1)
    centre = (2 * chosen[:, :2].sigmoid() - 0.5 + cells) * stride
    side = (2 * chosen[:, 2:4].sigmoid()).square() * anchors_px[found.anchor]
    return torch.cat([centre, side], 1)
