"""The layers of EfficientNet and EfficientDet as PyTorch modules.

Parameter names are those of the published checkpoints, so a state dict loads strictly.
All tensors are (N, C, H, W) float32 unless said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.efficientdet.structure import Block

NORM_EPS = 1e-3  # of TensorFlow's models, and of every feature pyramid and head
NATIVE_EPS = 1e-5  # of backbones that were trained in PyTorch


def conv(
    cin: int, cout: int, kernel: int, *, stride: int = 1, groups: int = 1, same: bool = True
) -> nn.Conv2d:
    """A convolution without bias whose result has ceil(size / stride) pixels."""
    if stride > 1 and same:
        return SameConv(cin, cout, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)


class SameConv(nn.Conv2d):
    """TensorFlow's padding SAME: where it is odd, the extra pixel is at the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture has of each."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        averages = x.mean((2, 3), keepdim=True)
        return x * self.conv_expand(F.silu(self.conv_reduce(averages))).sigmoid()  # type: ignore[no-any-return]  # nn.Module's call is untyped


class MobileBlock(nn.Module):
    """[pointwise], depthwise, [squeeze-and-excitation], pointwise; a shortcut where shapes allow.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", ICML 2019, table 1.
    """

    def __init__(self, block: Block, stride: int, act: nn.Module, eps: float, same: bool) -> None:
        super().__init__()
        self.act = act
        self.shortcut = stride == 1 and block.inputs == block.outputs
        norms = iter(("bn1", "bn2", "bn3"))
        if block.expands:
            self.conv_pw = conv(block.inputs, block.hidden, 1)
            self.add_module(next(norms), nn.BatchNorm2d(block.hidden, eps))
        self.conv_dw = conv(
            block.hidden, block.hidden, block.kernel, stride=stride, groups=block.hidden, same=same
        )
        self.add_module(next(norms), nn.BatchNorm2d(block.hidden, eps))
        self.se = SqueezeExcite(block.hidden, block.squeezed) if block.squeezed else nn.Identity()
        name = "conv_pwl" if block.expands else "conv_pw"
        self.add_module(name, conv(block.hidden, block.outputs, 1))
        self.add_module(next(norms), nn.BatchNorm2d(block.outputs, eps))

    def pairs(self) -> list[tuple[str, str]]:
        """Names of the convolutions and of the norms behind them, in the order they run."""
        if hasattr(self, "conv_pwl"):
            return [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        return [("conv_dw", "bn1"), ("conv_pw", "bn2")]

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        *first, last = [(getattr(self, c), getattr(self, n)) for c, n in self.pairs()]
        for convolution, norm in first:
            x = self.act(norm(convolution(x)))
        x = last[1](last[0](self.se(x)))
        return x + shortcut if self.shortcut else x


class ConvNorm(nn.Module):
    """A pointwise convolution and a batch norm."""

    def __init__(self, cin: int, cout: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 1, bias=bias)
        self.bn: nn.Module = nn.BatchNorm2d(cout, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Separable(nn.Module):
    """A depthwise 3x3 and a pointwise convolution."""

    def __init__(self, cin: int, cout: int, *, bias: bool) -> None:
        super().__init__()
        self.conv_dw = conv(cin, cin, 3, groups=cin)
        self.conv_pw = nn.Conv2d(cin, cout, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class SeparableNorm(Separable):
    """With a batch norm behind."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__(channels, channels, bias=bias)
        self.bn: nn.Module = nn.BatchNorm2d(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(super().forward(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class LevelNorm(nn.Module):
    """A head's batch norm for one repeat and level, as it is named where repeats come first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)  # type: ignore[no-any-return]  # nn.Module's call is untyped


def resized(x: Tensor, size: tuple[int, int], same: bool) -> Tensor:
    """A level of the pyramid at the size of one above or below it.

    Down: the maximum of 3x3 pixels at every second one (kernel = stride + 1, as the sizes of levels
    ask for), padded like a convolution. Up: the nearest pixel; of an odd size the last is cut off,
    which is what nearest neighbours come to.
    """
    height, width = x.shape[2:]
    if height > size[0] or width > size[1]:
        steps = [1 if old == new else 2 for old, new in zip((height, width), size, strict=True)]
        kernel = [1 if step == 1 else 3 for step in steps]
        odd = [old % 2 if same else 1 for old in (height, width)]
        pads = [0 if step == 1 else pad for step, pad in zip(steps, odd, strict=True)]
        return F.max_pool2d(x, kernel, steps, pads, ceil_mode=same)
    if height < size[0] or width < size[1]:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if x.shape[2:] != torch.Size(size):
            x = x[:, :, : size[0], : size[1]]
    return x
