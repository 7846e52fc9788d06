"""Small EfficientDets with random weights, in the layout of the published ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dyninfer.exporters.efficientdet.export import EFFICIENTDET, EfficientDetOptions
from dyninfer.exporters.efficientdet.model import EfficientDet
from dyninfer.exporters.efficientdet.structure import Block, Structure

_OUTPUTS, _KERNELS, _COUNTS = (
    (8, 8, 16, 16, 24, 24, 32),
    (3, 3, 5, 3, 5, 5, 3),
    (2, 1, 1, 1, 1, 1, 1),
)


def narrow(*, lite: bool = False, native: bool = False, **more: Any) -> Structure:
    """Seven stages of 8 to 32 channels, two cells of 16, heads of two convolutions."""
    inputs, stages = 8, []
    for stage, (outputs, kernel, count) in enumerate(zip(_OUTPUTS, _KERNELS, _COUNTS, strict=True)):
        blocks = []
        for _ in range(count):
            hidden = 2 * inputs if stage else inputs
            blocks.append(Block(inputs, hidden, outputs, kernel, 0 if lite else 4, stage > 0))
            inputs = outputs
        stages.append(tuple(blocks))
    given = {"channels": 16, "cells": 2, "repeats": 2, "levels": 5, "classes": 3, **more}
    given.setdefault("weighted", not lite)
    biased = not native
    return Structure(8, tuple(stages), redundant_bias=biased, same_padding=biased or lite, **given)


def random_model(structure: Structure, seed: int = 0) -> EfficientDet:
    """Every parameter and every statistic at random; some edges have weights below 0."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = EfficientDet(structure)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.8, 1.6)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.2, 0.2)
            uniform(module.running_var, 0.3, 1.2)
    for name, parameter in model.named_parameters():
        if name.endswith("edge_weights"):
            uniform(parameter, -0.4, 1.4)
        elif name.endswith(".bias") and "bn" not in name:
            uniform(parameter, -0.3, 0.3)
    return model.eval().requires_grad_(False)


def save(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


def save_whole(path: Path, label: int) -> Path:
    """One for pictures of 8x8: it finds the whole of any, as class ``label`` of two, with 0.75."""
    model = random_model(narrow(levels=3, cells=1, repeats=1, classes=2))
    for head in (model.class_net, model.box_net):
        head.predict.conv_pw.weight.zero_()
        head.predict.conv_pw.bias.zero_()
    model.class_net.predict.conv_pw.bias -= 9.0
    model.class_net.predict.conv_pw.bias[label] = math.log(3)
    # every level is one pixel of the stride 8, whose first anchor has a side of 32
    model.box_net.predict.conv_pw.bias.view(9, 4)[:, 2:] = math.log(8 / 32)
    return save(model, path)


def write_whole(path: Path) -> Path:
    """A bundle of one that finds the whole of any picture, as ``right``."""
    names = path.with_suffix(".txt")
    names.write_text("left\nright\n")
    options = EfficientDetOptions((8, 8), names, "tf_efficientdet_d0")
    source = save_whole(path.with_suffix(".pt"), 1)
    EFFICIENTDET.export(source, path, options, lambda _: None)
    return path
