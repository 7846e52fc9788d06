"""Checkpoints of small detectors with random weights, in the names of both libraries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

Shape = tuple[int, ...]
Widths = Sequence[Sequence[tuple[int, int]]]
# of each block the channels after its first and second convolution, which no two blocks share
UNEVEN: Widths = [[(8, 12)], [(6, 8), (10, 6)], [(8, 8)], [(12, 9), (5, 7), (7, 5)]]
OUTPUTS = (16, 24, 32, 40)
SIZE = (64, 96)


def shapes_of(
    columns: int = 4,
    widths: Widths = UNEVEN,
    outputs: Sequence[int] = OUTPUTS,
    channels: int = 16,
    stem: int = 8,
    hidden: Sequence[int] = (32, 24),
) -> dict[str, Shape]:
    """Of a detector in mmdetection's names; a column of ``columns`` is of no class."""
    shapes = dict(_backbone(widths, outputs, stem))
    for level, inputs in enumerate(outputs):
        shapes |= _layer(f"neck.lateral_convs.{level}.conv", (channels, inputs, 1, 1))
        shapes |= _layer(f"neck.fpn_convs.{level}.conv", (channels, channels, 3, 3))
    shapes |= _layer("rpn_head.rpn_conv", (channels, channels, 3, 3))
    shapes |= _layer("rpn_head.rpn_cls", (3, channels, 1, 1))
    shapes |= _layer("rpn_head.rpn_reg", (12, channels, 1, 1))
    head = "roi_head.bbox_head."
    sizes = (channels * 49, *hidden)
    for index, inputs in enumerate(sizes[:-1]):
        shapes |= _layer(f"{head}shared_fcs.{index}", (sizes[index + 1], inputs))
    shapes |= _layer(f"{head}fc_cls", (columns, sizes[-1]))
    return shapes | _layer(f"{head}fc_reg", (4 * columns - 4, sizes[-1]))


def mmdetection(columns: int = 4, **options) -> dict[str, Tensor]:
    """Random weights in mmdetection's names."""
    generator = torch.Generator().manual_seed(0)
    shapes = shapes_of(columns, **options)
    return {name: _drawn(name, shape, generator) for name, shape in shapes.items()}


def published(depths: Sequence[int], columns: int = 81) -> dict[str, Shape]:
    """The shapes of a ResNet's published detector."""
    widths = [[(64 * 2**i,) * 2] * depth for i, depth in enumerate(depths)]
    return shapes_of(columns, widths, (256, 512, 1024, 2048), 256, 64, (1024, 1024))


def torchvision(columns: int = 4, **options) -> dict[str, Tensor]:
    """The same in torchvision's names, with boxes for the first column, which is of no class."""
    state = mmdetection(columns, **options)
    head = "roi_head.bbox_head."
    for part in ("weight", "bias"):
        state[f"{head}fc_cls.{part}"] = state[f"{head}fc_cls.{part}"].roll(1, 0)
        boxes = state[f"{head}fc_reg.{part}"]
        state[f"{head}fc_reg.{part}"] = torch.cat([torch.ones_like(boxes[:4]), boxes])
    renamed = {}
    for name, tensor in state.items():
        for one, other in (
            ("backbone.", "backbone.body."),
            ("neck.lateral_convs.", "backbone.fpn.inner_blocks."),
            ("neck.fpn_convs.", "backbone.fpn.layer_blocks."),
            ("rpn_head.rpn_conv.", "rpn.head.conv.0.0."),
            ("rpn_head.rpn_cls.", "rpn.head.cls_logits."),
            ("rpn_head.rpn_reg.", "rpn.head.bbox_pred."),
            (f"{head}shared_fcs.0.", "roi_heads.box_head.fc6."),
            (f"{head}shared_fcs.1.", "roi_heads.box_head.fc7."),
            (f"{head}fc_cls.", "roi_heads.box_predictor.cls_score."),
            (f"{head}fc_reg.", "roi_heads.box_predictor.bbox_pred."),
        ):
            if name.startswith(one):
                new = other + name.removeprefix(one)
                renamed[new.replace(".conv.", ".0.") if ".fpn." in new else new] = tensor
    return renamed


def save(state: Mapping[str, Tensor], path: Path) -> Path:
    torch.save({"meta": {"epoch": 12}, "state_dict": dict(state)}, path)
    return path


def _layer(name: str, shape: Shape) -> dict[str, Shape]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, channels: int) -> dict[str, Shape]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def _backbone(widths: Widths, outputs: Sequence[int], stem: int) -> Iterator[tuple[str, Shape]]:
    yield "backbone.conv1.weight", (stem, 3, 7, 7)
    yield from _norm("backbone.bn1", stem).items()
    inputs = stem
    for stage, (blocks, channels) in enumerate(zip(widths, outputs, strict=True), 1):
        for index, (first, second) in enumerate(blocks):
            name = f"backbone.layer{stage}.{index}"
            yield f"{name}.conv1.weight", (first, inputs, 1, 1)
            yield f"{name}.conv2.weight", (second, first, 3, 3)
            yield f"{name}.conv3.weight", (channels, second, 1, 1)
            for number, width in enumerate((first, second, channels), 1):
                yield from _norm(f"{name}.bn{number}", width).items()
            if index == 0:
                yield f"{name}.downsample.0.weight", (channels, inputs, 1, 1)
                yield from _norm(f"{name}.downsample.1", channels).items()
            inputs = channels


def _drawn(name: str, shape: Shape, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return drawn * 1.4 / math.prod(shape[1:]) ** 0.5
    if name.endswith("running_var"):
        return 0.5 + drawn.square() / 2
    if name.endswith("weight"):  # of a norm, which is calm where maps would grow with depth
        return (0.5 + drawn.abs() / 2) * (0.5 if "bn3" in name else 0.8)
    return drawn / 10
