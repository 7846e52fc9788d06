"""Published variants with random weights, as bundles: the right amount of work, no training.

``python -m dyninfer.benchmarks.lab.random_models --help`` tells how to make one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from dyninfer.errors import InputError
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.model import random_model
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


def export_random(variant: str, side: int, width_divisor: int, folder: Path) -> Path:
    """Export a published variant with random weights, by way of a checkpoint; the bundle.

    Args:
        variant: a key of :data:`ANCHORS`.
        side: of the square input in pixels.
        width_divisor: divides all widths, down to :data:`MIN_CHANNELS`; to try something out.
        folder: where checkpoint and bundle go.

    Raises:
        InputError: the variant is unknown.
    """
    if variant not in ANCHORS:
        raise InputError(f"variant is {variant!r}, expected one of {', '.join(ANCHORS)}")
    plan = plan_from_table(
        published(variant), lambda _, channels: max(MIN_CHANNELS, channels // width_divisor)
    )
    model = random_model(plan, ANCHORS[variant], seed=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=WEIGHT_GAIN / module.weight[0].numel() ** 0.5)
    checkpoint, bundle = folder / f"{variant}.pt", folder / f"{variant}.dyn"
    torch.save({"model": model.state_dict()}, checkpoint)
    options = DynamicDetOptions(image_size=(side, side), overwrite=True)
    export_dynamicdet(checkpoint, bundle, options)
    return bundle


def main(
    variant: Annotated[str, typer.Argument(help=f"One of {', '.join(ANCHORS)}.")],
    image_size: Annotated[int, typer.Option(help="Side of the square input in pixels.")] = 640,
    width_divisor: Annotated[int, typer.Option(min=1, help="Divide all widths by this.")] = 1,
) -> None:
    """Write VARIANT.pt, a checkpoint with random weights, and VARIANT.dyn here."""
    typer.echo(export_random(variant, image_size, width_divisor, Path()))


if __name__ == "__main__":
    typer.run(main)
