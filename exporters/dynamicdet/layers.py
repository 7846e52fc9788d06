"""The operations of the topology tables as PyTorch modules.

Parameter names are those of the published checkpoints, so a state dict loads strictly.
All tensors are (N, C, H, W) float32 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_NORM_EPS = 1e-3  # the published models train with this, not with PyTorch's 1e-5
BATCH_NORM_MOMENTUM = 0.03


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants the published models were trained with."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


class ConvBnSiLU(nn.Module):
    """Convolution without bias, batch norm, SiLU; padding keeps the size at stride 1."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        self.bn = batch_norm(cout)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class SpaceToDepth2(nn.Module):
    """(N, C, H, W) -> (N, 4C, H/2, W/2): row parity varies fastest over the channel blocks."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return torch.cat(blocks, 1)


class Concat(nn.Module):
    """Concatenation along channels, in the order of the inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling inside a cross-stage-partial block (YOLOv7)."""

    def __init__(self, cin: int, hidden: int, cout: int) -> None:
        super().__init__()
        self.cv1 = ConvBnSiLU(cin, hidden)
        self.cv2 = ConvBnSiLU(cin, hidden)
        self.cv3 = ConvBnSiLU(hidden, hidden, 3)
        self.cv4 = ConvBnSiLU(hidden, hidden)
        self.cv5 = ConvBnSiLU(4 * hidden, hidden)
        self.cv6 = ConvBnSiLU(hidden, hidden, 3)
        self.cv7 = ConvBnSiLU(2 * hidden, cout)

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [self.cv4(self.cv3(self.cv1(x)))]
        for _ in range(3):  # three 5x5 pools in a row equal pools of 5, 9 and 13, and cost less
            pyramid.append(F.max_pool2d(pyramid[-1], 5, 1, 2))
        pooled = self.cv6(self.cv5(torch.cat(pyramid, 1)))
        return self.cv7(torch.cat([pooled, self.cv2(x)], 1))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class RepConv(nn.Module):
    """Sum of a 3x3, a 1x1 and (where the shape allows) an identity branch, then SiLU."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.rbr_dense, self.rbr_1x1 = (
            nn.Sequential(
                nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), batch_norm(cout)
            )
            for kernel in (3, 1)
        )
        self.rbr_identity = batch_norm(cin) if cin == cout and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        return F.silu(total)


class CBLinear(nn.Module):
    """1x1 convolution whose output is split along channels, one split per fusion point."""

    def __init__(self, cin: int, splits: Sequence[int]) -> None:
        super().__init__()
        self.splits = list(splits)
        self.conv = nn.Conv2d(cin, sum(splits), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.conv(x).split(self.splits, dim=1)  # type: ignore[no-any-return]  # untyped torch


class CBFuse(nn.Module):
    """Adds one split of every auxiliary input, resized, to the last input."""

    def __init__(self, split_index: Sequence[int]) -> None:
        super().__init__()
        self.split_index = tuple(split_index)

    def forward(self, *inputs: tuple[Tensor, ...] | Tensor) -> Tensor:
        target = inputs[-1]
        assert isinstance(target, Tensor)
        total = target
        for splits, index in zip(inputs[:-1], self.split_index, strict=True):
            total = total + F.interpolate(splits[index], size=target.shape[2:], mode="nearest")
        return total


class ImplicitA(nn.Module):
    """A learned per-channel offset (YOLOR, "implicit knowledge")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.implicit


class ImplicitM(nn.Module):
    """A learned per-channel factor (YOLOR, "implicit knowledge")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.implicit


class Detect(nn.Module):
    """Prediction convolutions of every level, without the decode.

    Returns one tensor (N, anchors * (5 + classes), H, W) per level: the raw logits
    ``im * (m(ia + x))`` of x, y, w, h, objectness and classes.
    """

    anchors: Tensor
    anchor_grid: Tensor

    def __init__(self, cins: Sequence[int], classes: int, anchors: int) -> None:
        super().__init__()
        self.classes = classes
        outputs = anchors * (5 + classes)
        self.m = nn.ModuleList(nn.Conv2d(cin, outputs, 1) for cin in cins)
        self.ia = nn.ModuleList(ImplicitA(cin) for cin in cins)
        self.im = nn.ModuleList(ImplicitM(outputs) for _ in cins)
        self.register_buffer("anchors", torch.zeros(len(cins), anchors, 2))
        self.register_buffer("anchor_grid", torch.zeros(len(cins), 1, anchors, 1, 1, 2))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        levels = zip(self.m, self.ia, self.im, inputs, strict=True)
        return tuple(im(m(ia(x))) for m, ia, im, x in levels)


class Router(nn.Module):
    """Two 1x1 convolutions over pooled features: easiness = 1 - difficulty, (N, 1) in [0, 1].

    Source: Lin et al., "DynamicDet: A Unified Dynamic Architecture for Object Detection",
    CVPR 2023, section 3.2 (adaptive router).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(channels, hidden, 1)
        self.layer2 = nn.Conv2d(hidden, 1, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """``pooled`` is (N, channels)."""
        hidden = F.relu(self.layer1(pooled[:, :, None, None]))
        return torch.sigmoid(self.layer2(hidden)).flatten(1)
