"""ZenDet's backbones as PyTorch modules, from a structure.

Parameter names are those of the published checkpoints, so a state dict loads strictly.
All tensors are (N, C, H, W) float32.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dyninfer.search.structure import Block, Structure

_CALMED = 0.25  # of a random block's result beside its shortcut, or maps would grow with depth
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn1: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Bottleneck(nn.Module):
    """Convolutions of 1, k and 1 beside a shortcut, which is pooled and projected in the first."""

    def __init__(self, block: Block, *, first: bool) -> None:
        super().__init__()
        inputs = block.inputs if first else block.outputs
        self.stride = block.stride if first else 1
        self.conv1 = ConvNorm(inputs, block.width)
        self.conv2 = ConvNorm(block.width, block.width, block.kernel, self.stride, block.groups)
        self.conv3 = ConvNorm(block.width, block.outputs)
        self.residual_proj = ConvNorm(inputs, block.outputs) if first else None

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, 2)
        if self.residual_proj is not None:
            x = self.residual_proj(x)
        return (main + x).relu()  # type: ignore[no-any-return]  # nn.Module's call is untyped


class SuperBlock(nn.Module):
    """Bottlenecks in a row."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(
            Bottleneck(block, first=not index) for index in range(block.depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for bottleneck in self.block_list:
            x = bottleneck(x)
        return x


class Backbone(nn.Module):
    """Images (N, 3, H, W) -> C2 to C5."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        stem, *others = structure.blocks
        first = ConvNorm(stem.inputs, stem.outputs, stem.kernel, stem.stride, stem.groups)
        self.block_list = nn.ModuleList([first, *(SuperBlock(block) for block in others)])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.maps(images)[1:]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """C1 to C5."""
        maps = []
        x = images
        for index, block in enumerate(self.block_list):
            x = block(x) if index else block(x).relu()
            if index in self.structure.stage_ends:
                maps.append(x)
        return tuple(maps)


def random_backbone(structure: Structure, seed: int) -> Backbone:
    """A backbone whose weights are drawn, the same for the same seed, for work on its latency."""
    backbone = Backbone(structure)
    draw_backbone(backbone, torch.Generator().manual_seed(seed))
    return backbone.eval().requires_grad_(False)


def draw_backbone(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions, and calm the bottlenecks among them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, Bottleneck):
            assert isinstance(module.conv3.bn1, nn.BatchNorm2d)
            nn.init.constant_(module.conv3.bn1.weight, _CALMED)


def fold(model: ModuleT) -> ModuleT:
    """A copy whose batch norms are in the convolutions before them, computed in float64."""
    folded = copy.deepcopy(model)
    for module in folded.modules():
        if isinstance(module, ConvNorm):
            assert isinstance(module.bn1, nn.BatchNorm2d)
            module.conv1 = fuse_conv_bn_eval(module.conv1.double(), module.bn1.double()).float()
            module.bn1 = nn.Identity()
    return folded
