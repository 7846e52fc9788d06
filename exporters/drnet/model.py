"""ResNets whose batch norms have a set of values for each resolution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.errors import CheckpointError
from dyninfer.exporters.drnet.names import canonical, count_sets
from dyninfer.exporters.weights import load_strictly

EPSILON = 1e-5
_HINT = (
    "expected a ResNet with a stem of one convolution, basic or bottleneck blocks (the stride in "
    "their 3x3), a 1x1 projection where shapes change, and a linear layer at the end"
)


class Norm(nn.Module):
    """One set of a batch norm's values."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON
        )

    @property
    def never_trained(self) -> bool:
        """Whether the values are those of the start; weight decay shrinks the weights alike."""
        still = (self.bias == 0) & (self.running_mean == 0) & (self.running_var == 1)
        return bool(still.all()) and bool((self.weight == self.weight[0]).all())


class Norms(nn.Module):
    """A batch norm with sets, for maps (N, C, h, w): y_j = gamma_j (x - mean_j) / sd_j + beta_j."""

    def __init__(self, channels: int, sets: int) -> None:
        super().__init__()
        self.bn = nn.ModuleList(Norm(channels) for _ in range(sets))

    def forward(self, x: Tensor, chosen: int) -> Tensor:
        return self.bn[chosen](x)  # type: ignore[no-any-return]  # untyped torch


class Block(nn.Module):
    """A basic block, of two convolutions, or a bottleneck, of three.

    Args:
        state: the whole checkpoint, for the shapes.
        prefix: of the block's names, with the dot.
        inputs: channels that it reads.
        stride: of its 3x3 convolution (of a basic block the first).
        sets: of each batch norm.
    """

    downsample: nn.Sequential | None

    def __init__(
        self, state: Mapping[str, Tensor], prefix: str, inputs: int, stride: int, sets: int
    ) -> None:
        super().__init__()
        self.convolutions = 3 if f"{prefix}conv3.weight" in state else 2
        strided, channels = self.convolutions - 1, inputs
        for number in range(1, self.convolutions + 1):
            step = stride if number == strided else 1
            conv = convolution(state, f"{prefix}conv{number}", channels, step)
            channels = conv.out_channels
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", Norms(channels, sets))
        self.outputs, self.downsample = channels, None
        if f"{prefix}downsample.0.weight" in state:
            conv = convolution(state, f"{prefix}downsample.0", inputs, stride)
            self.downsample = nn.Sequential(conv, Norms(conv.out_channels, sets))
        elif stride > 1 or inputs != channels:
            raise CheckpointError(
                f"{prefix}downsample.0.weight is missing, though the block makes {channels} "
                f"channels of {inputs} with a stride of {stride}; {_HINT}"
            )

    def forward(self, x: Tensor, chosen: int, shortcut: int) -> Tensor:
        y = x
        for number in range(1, self.convolutions + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y), chosen)
            if number < self.convolutions:
                y = y.relu()
        if self.downsample is not None:
            conv, norms = self.downsample
            x = norms(conv(x), shortcut)
        return (y + x).relu()


class ResNet(nn.Module):
    """Images (N, 3, h, w) -> logits (N, C), with the batch norms' set that is asked for.

    The shapes are those of ``state``, by canonical names; the model is filled with its values.

    Raises:
        CheckpointError: the weights are those of another network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.sets = count_sets(state)
        with torch.device("meta"):
            self.conv1 = convolution(state, "conv1", 3, 2)
            self.bn1 = Norms(self.conv1.out_channels, self.sets)
            channels = self.conv1.out_channels
            self.stages = [f"layer{number}" for number in _present(state, "layer", 1)]
            for place, stage in enumerate(self.stages):
                blocks = nn.ModuleList()
                for index in _present(state, f"{stage}.", 0):
                    stride = 2 if place and not index else 1
                    block = Block(state, f"{stage}.{index}.", channels, stride, self.sets)
                    channels = block.outputs
                    blocks.append(block)
                self.add_module(stage, blocks)
            self.fc = nn.Linear(channels, _shape(state, "fc.weight", 2)[0])

    def forward(self, images: Tensor, chosen: int = 0, shortcut: int | None = None) -> Tensor:
        """``shortcut`` is the set of the projections' batch norms; None for that of the others."""
        shortcut = chosen if shortcut is None else shortcut
        x = self.bn1(self.conv1(images), chosen).relu()
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            for block in getattr(self, stage):
                x = block(x, chosen, shortcut)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]  # untyped torch

    @property
    def classes(self) -> int:
        """How many logits it makes."""
        return self.fc.out_features

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in the order they run."""
        return [cast(Block, block) for stage in self.stages for block in getattr(self, stage)]

    def convolutions(self) -> Iterator[tuple[nn.Module, str, str]]:
        """Every convolution and the batch norm behind it, by their names in the module they are in.

        That is a Sequential where they belong to a shortcut.
        """
        yield self, "conv1", "bn1"
        for block in self.blocks:
            for number in range(1, block.convolutions + 1):
                yield block, f"conv{number}", f"bn{number}"
            if block.downsample is not None:
                yield block.downsample, "0", "1"

    def __str__(self) -> str:
        depths = "-".join(str(len(getattr(self, stage))) for stage in self.stages)
        kind = "bottleneck" if self.blocks[0].convolutions == 3 else "basic"
        return f"a ResNet of {depths} {kind} blocks"


def resnet_from_state(state: Mapping[str, Tensor]) -> ResNet:
    """The model of a checkpoint's weights, by any of their spellings, in float32.

    Raises:
        CheckpointError: the weights are those of another network, or a batch norm's set is missing.
    """
    if any(name.startswith("features.") for name in state):
        raise CheckpointError(
            "the weights are those of a MobileNetV2, of which DRNet's predictor is not published; "
            "only ResNets can be exported"
        )
    named = canonical(state)
    model = ResNet(named)
    load_strictly(model, named, str(model), _HINT)
    return model


def convolution(state: Mapping[str, Tensor], name: str, inputs: int, stride: int) -> nn.Conv2d:
    """A convolution of the shape of its weight, on as many groups as ``inputs`` channels make."""
    outputs, depth, *kernel = _shape(state, f"{name}.weight", 4)
    if not depth or inputs % depth or kernel[0] != kernel[1] or not kernel[0] % 2 or not outputs:
        raise CheckpointError(
            f"{name}.weight is {outputs}x{depth}x{kernel[0]}x{kernel[1]} where {inputs} channels "
            f"come in; {_HINT}"
        )
    groups = inputs // depth
    if outputs % groups:
        raise CheckpointError(f"{name}.weight makes {outputs} channels in {groups} groups; {_HINT}")
    return nn.Conv2d(inputs, outputs, kernel[0], stride, kernel[0] // 2, groups=groups, bias=False)


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{name} is missing; {_HINT}")
    shape = tuple(state[name].shape)
    if len(shape) != axes:
        raise CheckpointError(f"{name} has {len(shape)} axes, expected {axes}; {_HINT}")
    return shape


def _present(state: Mapping[str, Tensor], before: str, first: int) -> list[int]:
    """The numbers behind a prefix of names, from ``first`` on, as long as there are some."""
    pattern = re.compile(rf"{re.escape(before)}(\d+)\.")
    seen = {match[1] for name in state if (match := pattern.match(name))}
    return list(takewhile(lambda number: str(number) in seen, count(first)))
