"""Two searched backbones as a cascade, with random weights, for work on latency before training.

Built as DynamicDet is: a first backbone and its detector, a router over averages of the first
backbone's maps, and a second backbone that reads the image again and is helped by the first one's
maps at every stage (Lin et al., "DynamicDet", CVPR 2023, sections 3.1 and 3.2).
"""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor, nn

from dyninfer.bundle.manifest import Task
from dyninfer.exporters.dynamicdet.fold import PyramidFuse
from dyninfer.exporters.dynamicdet.layers import Router
from dyninfer.exporters.dynamicdet.stages import ModelStage, RouterStage
from dyninfer.exporters.parity import AVERAGES
from dyninfer.exporters.zendet.backbone import Backbone, SuperBlock, draw_backbone
from dyninfer.exporters.zendet.detector import LATERALS, Decode, Head, HeadShape, Pyramid
from dyninfer.exporters.zendet.stages import IMAGES
from dyninfer.search.structure import STAGES, Structure

FIRST, ROUTER, HEAD, SECOND = "first", "router", "head", "second"
HEAD_CHANNELS = 192
"""Of necks and heads, as in the smallest published detector."""
_DEPTH, _BINS, _KEPT, _HIDDEN = 4, 17, 4, 64  # of the published heads
_REDUCTION = 4  # of the router
_RARE = 0.01  # of all places have an object before training (focal loss, section 4.1)
_MAPS = tuple(f"feature_c{level}" for level in range(1, STAGES + 1))


class SecondBackbone(Backbone):
    """Images and the first backbone's C1 to C5 -> C2 to C5.

    To the map after every convolution of stride 2 are added the first backbone's maps of that
    stride and of all larger ones, each through a convolution of its own and enlarged.
    """

    def __init__(self, structure: Structure, channels: tuple[int, ...]) -> None:
        super().__init__(structure)
        own = [block.outputs for block in structure.blocks if block.stride == 2]
        self.links = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for outputs in own[: level + 1])
            for level, inputs in enumerate(channels)
        )
        self.fuses = nn.ModuleList(
            PyramidFuse((level,) * (STAGES - level)) for level in range(STAGES)
        )

    def forward(self, images: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        links = [
            tuple(conv(map_) for conv in convs.children())
            for convs, map_ in zip(self.links, features, strict=True)
        ]
        stem, *others = self.block_list
        x = self.fuses[0](*links, stem(images).relu())
        maps, level = [], 0
        for index, block in enumerate(others, start=1):
            assert isinstance(block, SuperBlock)
            for bottleneck in block.block_list:
                x = bottleneck(x)
                if bottleneck.stride == 2:
                    level += 1
                    x = self.fuses[level](*links[level:], x)
            if index in self.structure.stage_ends:
                maps.append(x)
        return tuple(maps)


class FirstStage(ModelStage):
    """Images -> C1 to C5, and the averages of each."""

    inputs, outputs = (IMAGES,), (*_MAPS, AVERAGES)

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone.maps(images)
        return (*maps, torch.cat([each.mean(3).mean(2) for each in maps], 1))


class HeadStage(ModelStage):
    """C3 to C5 -> boxes (N, K, 4) in pixels and class scores (N, K, C)."""

    inputs, outputs = _MAPS[-LATERALS:], Task.DETECT.outputs

    def __init__(self, channels: tuple[int, ...], shape: HeadShape, decode: Decode) -> None:
        super().__init__()
        self.neck = Pyramid(channels[-LATERALS:], shape.channels)
        self.bbox_head = Head(shape)
        self.decode = decode

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(self.bbox_head(self.neck(maps)))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class SecondStage(ModelStage):
    """Images and the first backbone's maps -> boxes and class scores."""

    inputs, outputs = (IMAGES, *_MAPS), Task.DETECT.outputs

    def __init__(self, backbone: SecondBackbone, head: HeadStage) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(*inputs)
        return self.head(*maps[-LATERALS:])  # type: ignore[no-any-return]  # nn.Module's call is untyped


def random_cascade(
    structures: tuple[Structure, Structure],
    image_size: tuple[int, int],
    classes: int,
    candidates: int | None,
    seed: int,
) -> dict[str, ModelStage]:
    """The stages by name, in the order they run; the same weights for the same seed.

    ``image_size`` is height and width, multiples of 32; ``candidates`` are how many of the surest
    boxes each head gives on, None for all.
    """
    first, second = structures
    shape = HeadShape(
        HEAD_CHANNELS, HEAD_CHANNELS, _DEPTH, classes, bins=_BINS, kept=_KEPT, hidden=_HIDDEN
    )
    averages = sum(first.channels)
    stages: dict[str, ModelStage] = {
        FIRST: FirstStage(Backbone(first)),
        ROUTER: RouterStage(Router(averages, max(1, averages // _REDUCTION))),
        HEAD: HeadStage(first.channels, shape, Decode(image_size, classes, candidates)),
        SECOND: SecondStage(
            SecondBackbone(second, first.channels),
            HeadStage(second.channels, shape, Decode(image_size, classes, candidates)),
        ),
    }
    generator = torch.Generator().manual_seed(seed)
    for stage in stages.values():
        _draw(stage, generator)
    return {name: stage.eval().requires_grad_(False) for name, stage in stages.items()}


def _draw(stage: ModelStage, generator: torch.Generator) -> None:
    """Draw all weights of a stage; objects are rare, as a training starts."""
    draw_backbone(stage, generator)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in stage.modules():
        if isinstance(module, Head):
            for conv in chain([module.gfl_cls, module.gfl_reg], module.reg_conf):
                if isinstance(conv, nn.Conv2d):
                    nn.init.normal_(conv.weight, std=0.01, generator=generator)
            assert module.gfl_cls.bias is not None
            nn.init.constant_(module.gfl_cls.bias, -math.log((1 - _RARE) / _RARE))
