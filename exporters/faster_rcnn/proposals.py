"""The regions that are looked at: anchors, their boxes, and the best that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.best_rows import best_rows, rows_at
from dyninfer.exporters.faster_rcnn.conventions import STRIDES, Conventions
from dyninfer.exporters.faster_rcnn.suppress import kept_by_nms

_RATIOS = (0.5, 1.0, 2.0)  # height over width
_SIDE = 8  # of an anchor, in strides
_PER_LEVEL = 1000  # anchors before suppression
_IOU = 0.7
_LARGEST_SCALE = math.log(1000 / 16)


def level_sizes(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of P2 to P6."""
    height, width = image_size
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def make_anchors(image_size: tuple[int, int], conventions: Conventions) -> list[Tensor]:
    """The anchors of each level, (A, 4) as x, y, x, y in pixels, in the order of the head's."""
    anchors = []
    for stride, (height, width) in zip(STRIDES, level_sizes(image_size), strict=True):
        steps = (stride, stride)
        if conventions.floored_strides:
            steps = (image_size[0] // height, image_size[1] // width)
        roots = torch.tensor(_RATIOS).sqrt()
        sides = torch.stack([1 / roots, roots], 1) * (_SIDE * stride / 2)
        shapes = torch.cat([-sides, sides], 1)
        if conventions.rounded_anchors:
            shapes = shapes.round()
        rows, columns = torch.arange(height) * steps[0], torch.arange(width) * steps[1]
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack([x, y, x, y], 2).reshape(-1, 1, 4)
        anchors.append((centres + shapes).reshape(-1, 4))
    return anchors


def decode(boxes: Tensor, codes: Tensor, *, both_limits: bool) -> Tensor:
    """Boxes (..., 4) moved and scaled by codes (..., 4): dx, dy, dw, dh in parts of their sides."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    scales = codes[..., 2:].clamp(max=_LARGEST_SCALE)
    if both_limits:
        scales = scales.clamp(min=-_LARGEST_SCALE)
    middle = codes[..., :2] * size + centre
    reach = 0.5 * scales.exp() * size
    return torch.cat([middle - reach, middle + reach], -1)


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (..., 4) cut at the image's edges; ``limits`` are its width, height, width, height."""
    return torch.minimum(boxes.clamp(min=0), limits)


def large_enough(boxes: Tensor, least: float) -> Tensor:
    """(...) whether both sides of boxes (..., 4) are above ``least``, 1 or 0 in their type."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides.amin(-1) > least).to(boxes.dtype)


class Proposals(nn.Module):
    """What the levels say of their anchors -> proposals (N, R, 4) in pixels, objectness (N, R, 1).

    The surest come first. Where there are fewer than R, the rest has an objectness of 0.
    """

    limits: Tensor
    of_level: Tensor

    def __init__(self, image_size: tuple[int, int], count: int, conventions: Conventions) -> None:
        super().__init__()
        self.conventions = conventions
        anchors = make_anchors(image_size, conventions)
        for level, each in enumerate(anchors):
            self.register_buffer(f"anchors_{level}", each)
        self.best = [min(_PER_LEVEL, len(each)) for each in anchors]
        self.count = min(count, sum(self.best))
        levels = torch.arange(len(STRIDES))
        own = levels.repeat_interleave(torch.tensor(self.best)) == levels.unsqueeze(1)
        self.register_buffer("of_level", own.float())  # none suppresses another's
        height, width = image_size
        self.register_buffer("limits", torch.tensor([width, height, width, height]).float())

    def forward(self, levels: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        boxes, sure = [], []
        for level, (logits, codes) in enumerate(levels):
            best = best_rows(logits, self.best[level])
            anchors = F.embedding(best, getattr(self, f"anchors_{level}"))
            boxes.append(
                decode(anchors, rows_at(codes, best), both_limits=self.conventions.least_scale)
            )
            sure.append(rows_at(logits.unsqueeze(2), best).squeeze(2).sigmoid())
        box = clip(torch.cat(boxes, 1), self.limits)
        objectness = torch.cat(sure, 1) * large_enough(box, self.conventions.least_proposal)
        apart = objectness.unsqueeze(1) * self.of_level
        kept = kept_by_nms(box, apart, _IOU, self.count)
        objectness = objectness * kept
        best = best_rows(objectness, self.count)
        return rows_at(box, best), rows_at(objectness.unsqueeze(2), best)
