"""What an EfficientDet costs, counted without its memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dyninfer.exporters.efficientdet.model import EfficientDet
from dyninfer.exporters.efficientdet.scaling import Scaled

PARTS = ("backbone", "fpn", "class_net", "box_net")


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-accumulates of an image, of each part."""

    parameters: dict[str, int]
    macs: dict[str, int]

    @property
    def total_parameters(self) -> int:
        """Of the whole model."""
        return sum(self.parameters.values())

    @property
    def total_macs(self) -> int:
        """Of the whole model."""
        return sum(self.macs.values())


def cost_of(scaled: Scaled) -> Cost:
    """The cost of a configuration, built and run on PyTorch's meta device: in shapes alone."""
    with torch.device("meta"):
        model = EfficientDet(scaled.structure()).eval()
        macs = counted_macs(model, torch.empty(1, 3, scaled.image_size, scaled.image_size))
    parameters = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in PARTS}
    return Cost(parameters, macs)


def counted_macs(model: EfficientDet, images: torch.Tensor) -> dict[str, int]:
    """Multiply-accumulates of each part, from what every convolution puts out for ``images``."""
    macs = dict.fromkeys(PARTS, 0)

    def watch(part: str) -> None:
        def count(conv: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            assert isinstance(conv, nn.Conv2d)
            macs[part] += output[0].numel() * conv.weight[0].numel()

        for module in getattr(model, part).modules():
            if isinstance(module, nn.Conv2d):
                hooks.append(module.register_forward_hook(count))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for part in PARTS:
        watch(part)
    with torch.inference_mode():
        model(images)
    for hook in hooks:
        hook.remove()
    return macs
