"""Faster R-CNN as PyTorch modules, from a structure.

Sources: Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature Pyramid Networks for Object
Detection", CVPR 2017. Parameter names are those of :mod:`dyninfer.exporters.faster_rcnn.names`.
All maps are (N, C, H, W) float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dyninfer.exporters.faster_rcnn.structure import ANCHORS, Block, Conv, Structure


def _conv(conv: Conv, stride: int = 1) -> nn.Conv2d:
    padding = conv.kernel // 2
    channels = conv.inputs, conv.outputs
    return nn.Conv2d(*channels, conv.kernel, stride, padding, groups=conv.groups, bias=conv.bias)


def _norm(conv: Conv, eps: float = 1e-5) -> nn.Module:
    return nn.BatchNorm2d(conv.outputs, eps) if conv.norm else nn.Identity()


class ConvNorm(nn.Module):
    """A convolution, and a norm where it has one."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.conv, self.bn = _conv(conv), _norm(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Residual(nn.Module):
    """Convolutions beside a shortcut, with ReLU after each but the last, and after the sum."""

    def __init__(self, block: Block, stride: int, *, stride_first: bool, eps: float) -> None:
        super().__init__()
        self.count = len(block.convs)
        strided = 2 if self.count == 3 and not stride_first else 1
        for index, conv in enumerate(block.convs, 1):
            setattr(self, f"conv{index}", _conv(conv, stride if index == strided else 1))
            setattr(self, f"bn{index}", _norm(conv, eps))
        self.downsample: nn.Module | None = None
        if block.projection is not None:
            projection = block.projection
            self.downsample = nn.Sequential(_conv(projection, stride), _norm(projection, eps))

    def forward(self, x: Tensor) -> Tensor:
        main = x
        for index in range(1, self.count + 1):
            main = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(main))
            main = main.relu() if index < self.count else main
        return (main + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """Images (N, 3, H, W) -> C2 to C5.

    ``stride_first`` has the stride of a bottleneck in its first convolution, as Caffe's models do;
    otherwise it is in the second.
    """

    def __init__(self, structure: Structure, *, stride_first: bool, eps: float) -> None:
        super().__init__()
        self.conv1 = _conv(structure.stem, 2)
        self.bn1 = _norm(structure.stem, eps)
        for number, blocks in enumerate(structure.stages, 1):
            made = [
                Residual(
                    block,
                    2 if index == 0 and number > 1 else 1,
                    stride_first=stride_first,
                    eps=eps,
                )
                for index, block in enumerate(blocks)
            ]
            setattr(self, f"layer{number}", nn.Sequential(*made))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, 2, 1)
        maps = []
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """C2 to C5 -> P2 to P5."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(map(ConvNorm, structure.laterals))
        self.fpn_convs = nn.ModuleList(map(ConvNorm, structure.smooth))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for fine in reversed(range(len(laterals) - 1)):
            coarse = F.interpolate(laterals[fine + 1], scale_factor=2.0, mode="nearest")
            laterals[fine] = laterals[fine] + coarse
        return [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]


class ProposalHead(nn.Module):
    """P2 to P6 -> of all anchors, logits of their objectness (N, A) and codes (N, A, 4) per level.

    P6 is every second place of P5 in both directions. Anchors stand in the order of rows, columns
    and shapes.
    """

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.rpn_conv = nn.ModuleList(map(ConvNorm, structure.rpn))
        width = structure.rpn[-1].outputs if structure.rpn else structure.channels
        self.rpn_cls = nn.Conv2d(width, ANCHORS, 1)
        self.rpn_reg = nn.Conv2d(width, 4 * ANCHORS, 1)

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        levels = []
        for x in (*maps, F.max_pool2d(maps[-1], 1, 2)):
            for conv in self.rpn_conv:
                x = conv(x).relu()
            logits = self.rpn_cls(x).permute(0, 2, 3, 1).flatten(1)
            codes = self.rpn_reg(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
            levels.append((logits, codes))
        return levels


class RegionHead(nn.Module):
    """Maps of regions (N, R, C P P) -> logits of columns (N, R, C') and codes (N, R, B, 4)."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.shared_convs = nn.ModuleList(map(ConvNorm, structure.pooled))
        channels = structure.pooled[-1].outputs if structure.pooled else structure.channels
        sizes = (channels * 49, *structure.hidden)
        self.shared_fcs = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.fc_cls = nn.Linear(sizes[-1], structure.columns)
        self.fc_reg = nn.Linear(sizes[-1], 4 * structure.boxes)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        if self.shared_convs:
            count = regions.shape[1]
            maps = regions.reshape(-1, self.structure.channels, 7, 7)
            for conv in self.shared_convs:
                maps = conv(maps).relu()
            regions = maps.flatten(1).unflatten(0, (-1, count))  # type: ignore[no-untyped-call]
        for layer in self.shared_fcs:
            regions = layer(regions).relu()
        return self.fc_cls(regions), self.fc_reg(regions).unflatten(2, (-1, 4))


class FasterRCNN(nn.Module):
    """The parts of a detector; :mod:`dyninfer.exporters.faster_rcnn.stages` puts them together."""

    def __init__(
        self, structure: Structure, *, stride_first: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.structure = structure
        self.backbone = ResNet(structure, stride_first=stride_first, eps=eps)
        self.neck = Pyramid(structure)
        self.rpn_head = ProposalHead(structure)
        self.roi_head = nn.ModuleDict({"bbox_head": RegionHead(structure)})


def fold(model: FasterRCNN) -> FasterRCNN:
    """A copy whose batch norms are in the convolutions before them, computed in float64."""
    folded = copy.deepcopy(model)
    for module in folded.modules():
        parts = module._modules
        for name, conv in tuple(parts.items()):
            number = name.removeprefix("conv")
            norm = "1" if isinstance(module, nn.Sequential) and name == "0" else f"bn{number}"
            beside = parts.get(norm)
            if isinstance(conv, nn.Conv2d) and isinstance(beside, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(conv.double(), beside.double()).float()
                parts[name], parts[norm] = fused, nn.Identity()
    return folded
