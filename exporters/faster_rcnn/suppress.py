"""Non-maximum suppression as an operator: greedy in PyTorch, ``NonMaxSuppression`` in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("dyninfer::kept_by_nms", mutates_args=())
def kept_by_nms(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Which boxes stay, (N, B) as 1 or 0.

    Args:
        boxes: (N, B, 4) as x, y, x, y.
        scores: (N, G, B); a box takes part in each group where its score is above 0.
        iou: a box goes when it overlaps a better one of its group by more than this.
        most: how many stay in a group.
    """
    kept = torch.zeros(boxes.shape[:2], dtype=boxes.dtype)
    for image, groups in enumerate(scores):
        for group in groups:
            order = group.argsort(descending=True, stable=True)
            order = order[group[order] > 0]
            chosen = order[_first(boxes[image, order], iou)[:most]]
            kept[image, chosen] = 1
    return kept


@kept_by_nms.register_fake
def _(boxes: Tensor, *_: object) -> Tensor:
    return boxes.new_empty(boxes.shape[:2])


def _first(boxes: Tensor, iou: float) -> Tensor:
    """Places of those of boxes (B, 4), the surest first, that overlap none that stays before."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlaps = both / (area[:, None] + area[None] - both) > iou
    stays = torch.ones(len(boxes), dtype=torch.bool)
    for place in range(len(boxes)):
        if stays[place]:
            stays[place + 1 :] &= ~overlaps[place, place + 1 :]
    return stays.nonzero()[:, 0]


def _in_onnx(boxes: Any, scores: Any, iou: float, most: int) -> Any:
    from onnxscript import opset18  # takes a second, which no verification needs

    op: Any = opset18

    chosen = op.NonMaxSuppression(
        boxes,
        scores,
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[0.0]),
    )
    places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)
    best = op.ReduceMax(scores, op.Constant(value_ints=[1]), keepdims=0)
    nothing = op.Sub(best, best)
    ones = op.Cast(op.Gather(op.GreaterOrEqual(chosen, op.Constant(value_int=0)), 0, axis=1), to=1)
    return op.ScatterND(nothing, places, ones)


OPERATORS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.dyninfer.kept_by_nms.default: _in_onnx
}
"""What an export needs to know of them."""
