"""Published variants with random weights, as bundles: the right amount of work, no training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dyninfer.errors import InputError
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.model import DynamicDetector, random_model
from dyninfer.exporters.dynamicdet.plan import plan_from_table
from dyninfer.exporters.dynamicdet.topology import published

# w, h, w, h, ... in pixels for each level, as published with the models
_BASE_ANCHORS = (
    (12, 16, 19, 36, 40, 28),
    (36, 75, 76, 55, 72, 146),
    (142, 110, 192, 243, 459, 401),
)
ANCHORS = {
    "dy-yolov7": _BASE_ANCHORS,
    "dy-yolov7x": _BASE_ANCHORS,
    "dy-yolov7-w6": (
        (19, 27, 44, 40, 38, 94),
        (96, 68, 86, 152, 180, 137),
        (140, 301, 303, 264, 238, 542),
        (436, 615, 739, 380, 925, 792),
    ),
}

# keeps activations of random convolutions with SiLU at the same size through all layers; with
# PyTorch's default they shrink a hundredfold every ten layers
WEIGHT_GAIN = 1.6
MIN_CHANNELS = 8


@dataclass(frozen=True)
class RandomBundle:
    """A bundle and the checkpoint that it was exported from."""

    checkpoint: Path
    bundle: Path


def random_detector(variant: str, width_divisor: int = 1, seed: int = 0) -> DynamicDetector:
    """A published variant with random weights.

    Args:
        variant: a key of :data:`ANCHORS`.
        width_divisor: divides all widths, down to :data:`MIN_CHANNELS`; for tests.
        seed: of the weights.

    Raises:
        InputError: the variant is unknown.
    """
    if variant not in ANCHORS:
        raise InputError(f"variant is {variant!r}, expected one of {', '.join(ANCHORS)}")
    plan = plan_from_table(
        published(variant), lambda _, channels: max(MIN_CHANNELS, channels // width_divisor)
    )
    model = random_model(plan, ANCHORS[variant], seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=WEIGHT_GAIN / module.weight[0].numel() ** 0.5)
    return model


def export_random(
    model: DynamicDetector,
    image_size: tuple[int, int],
    folder: Path,
) -> RandomBundle:
    """Save ``model`` in the published checkpoint format and export that, both into ``folder``."""
    name = model.topology.name
    made = RandomBundle(folder / f"{name}.pt", folder / f"{name}.dyn")
    torch.save({"model": model.state_dict()}, made.checkpoint)
    options = DynamicDetOptions(image_size=image_size, overwrite=True)
    export_dynamicdet(made.checkpoint, made.bundle, options)
    return made
