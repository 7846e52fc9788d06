"""GFLV2 of a state dict by functions alone, as the papers and mmdetection 2 define it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import support

STRUCTURE = support.VECTORS / "zendet-narrow.txt"
CHECKPOINT = support.VECTORS / "zendet-narrow.pth"
SIZE = (96, 128)


def images() -> np.ndarray:
    with np.load(support.VECTORS / "zendet-narrow.npz") as vectors:
        return vectors["images"]


def backbone_state() -> dict[str, Tensor]:
    return torch.load(CHECKPOINT, weights_only=True)["state_dict"]


def detector_state(columns: int = 81, channels: int = 32, bins: int = 17) -> dict[str, Tensor]:
    """A detector's checkpoint on the vectors' backbone, with everything random."""
    generator = torch.Generator().manual_seed(columns)

    def drawn(*shape: int, spread: float = 0.1) -> Tensor:
        return torch.randn(*shape, generator=generator) * spread

    state = {f"backbone.body.{name}": tensor for name, tensor in backbone_state().items()}
    for index, inputs in enumerate((48, 64, 96)):
        state[f"neck.lateral_convs.{index}.conv.weight"] = drawn(channels, inputs, 1, 1)
        state[f"neck.lateral_convs.{index}.conv.bias"] = drawn(channels)
    for index in range(5):
        state[f"neck.fpn_convs.{index}.conv.weight"] = drawn(channels, channels, 3, 3)
        state[f"neck.fpn_convs.{index}.conv.bias"] = drawn(channels)
        state[f"bbox_head.scales.{index}.scale"] = 1 + drawn(1)[0]
    for branch in ("cls", "reg"):
        for index in range(4):
            name = f"bbox_head.{branch}_convs.{index}"
            state[f"{name}.conv.weight"] = drawn(channels, channels, 3, 3)
            state[f"{name}.gn.weight"] = 1 + drawn(channels)
            state[f"{name}.gn.bias"] = drawn(channels)
    for name, outputs in (("gfl_cls", columns), ("gfl_reg", 4 * bins)):
        state[f"bbox_head.{name}.weight"] = drawn(outputs, channels, 3, 3)
        state[f"bbox_head.{name}.bias"] = drawn(outputs)
    for index, (inputs, outputs) in zip((0, 2), ((20, 64), (64, 1)), strict=True):
        state[f"bbox_head.reg_conf.{index}.weight"] = drawn(outputs, inputs, 1, 1, spread=0.5)
        state[f"bbox_head.reg_conf.{index}.bias"] = drawn(outputs)
    state["bbox_head.integral.project"] = torch.arange(bins).float()
    return state


def save(state: Mapping[str, Tensor], path: Path) -> Path:
    torch.save({"meta": {"epoch": 73}, "state_dict": dict(state)}, path)
    return path


def detections(
    state: Mapping[str, Tensor], maps: list[Tensor], classes: int
) -> tuple[Tensor, Tensor]:
    """C3, C4 and C5 -> boxes (N, A, 4) and class scores (N, A, classes), place by place."""
    neck = {name[5:]: tensor for name, tensor in state.items() if name.startswith("neck.")}
    head = {name[10:]: tensor for name, tensor in state.items() if name.startswith("bbox_head.")}
    low = [_conv(neck, f"lateral_convs.{i}.conv", x) for i, x in enumerate(maps)]
    middle = low[1] + low[2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine = low[0] + middle.repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = [_conv(neck, f"fpn_convs.{i}.conv", x) for i, x in enumerate((fine, middle, low[2]))]
    for index in (3, 4):
        levels.append(_conv(neck, f"fpn_convs.{index}.conv", levels[-1], stride=2))
    boxes, scores = [], []
    for index, level in enumerate(levels):
        stride = 8 * 2**index
        cls, reg = (_branch(head, name, level) for name in ("cls", "reg"))
        logits = _conv(head, "gfl_reg", reg) * head[f"scales.{index}.scale"]
        columns = torch.sigmoid(_conv(head, "gfl_cls", cls))
        for y in range(level.shape[2]):
            for x in range(level.shape[3]):
                shares = logits[:, :, y, x].reshape(len(logits), 4, -1).softmax(2)
                top = shares.sort(2, descending=True).values[..., :4]
                known = torch.cat([top, top.mean(2, keepdim=True)], 2).reshape(len(logits), 20)
                hidden = known @ head["reg_conf.0.weight"][:, :, 0, 0].T + head["reg_conf.0.bias"]
                last = head["reg_conf.2.weight"][:, :, 0, 0].T
                quality = torch.sigmoid(hidden.relu() @ last + head["reg_conf.2.bias"])
                left, top_, right, bottom = (shares @ head["integral.project"] * stride).T
                cx, cy = x * stride, y * stride
                boxes.append(torch.stack([cx - left, cy - top_, cx + right, cy + bottom], 1))
                scores.append((columns[:, :, y, x] * quality)[:, :classes])
    return torch.stack(boxes, 1), torch.stack(scores, 1)


def _branch(head: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    for index in range(4):
        place = f"{name}_convs.{index}"
        x = F.conv2d(x, head[f"{place}.conv.weight"], padding=1)
        x = F.group_norm(x, 32, head[f"{place}.gn.weight"], head[f"{place}.gn.bias"]).relu()
    return x


def _conv(weights: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights[f"{name}.bias"], stride, kernel.shape[2] // 2)
