"""Compound scaling: one number for the size of backbone, pyramid, heads and image.

Sources: Tan and Le, "EfficientNet", ICML 2019 (table 1, and the multipliers of the published B0 to
B7); Tan, Pang and Le, "EfficientDet", CVPR 2020, equations 1 to 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dyninfer.exporters.efficientdet.structure import Block, Structure

MOST_PHI = 30.0
COCO_CLASSES = 90
# of B0 to B7: width, depth
MULTIPLIERS = (
    *((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4)),
    *((1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)),
)
_WIDER, _DEEPER = 1.1, 1.2  # for each step beyond B7, as EfficientNet's search found them
# of B0's stages: channels, blocks, kernel, expansion
_STAGES = (
    *((16, 1, 3, 1), (24, 2, 3, 6), (40, 2, 5, 6), (80, 3, 3, 6)),
    *((112, 3, 5, 6), (192, 4, 5, 6), (320, 1, 3, 6)),
)
_STEM = 32
_DIVISOR = 8
_COARSEST = 128  # the stride of P7, which the image size is a multiple of


@dataclass(frozen=True)
class Scaled:
    """A size of EfficientDet."""

    width: float
    depth: float
    image_size: int
    channels: int
    cells: int
    repeats: int
    levels: int = 5
    weighted: bool = True
    lite: bool = False
    redundant_bias: bool = True

    def structure(self, classes: int = COCO_CLASSES) -> Structure:
        """What it is made of."""
        stem, stages = backbone(self.width, self.depth, lite=self.lite)
        return Structure(
            stem=stem,
            stages=stages,
            channels=self.channels,
            cells=self.cells,
            repeats=self.repeats,
            levels=self.levels,
            classes=classes,
            weighted=self.weighted,
            redundant_bias=self.redundant_bias,
            same_padding=self.redundant_bias,
        )


def ideal(phi: float) -> Scaled:
    """The configuration of the paper's formulas, for any ``phi`` from 0 to :data:`MOST_PHI`.

    Channels 64 * 1.35^phi, in steps of 8; 3 + phi cells; 3 + phi / 3 repeats, rounded down; sides
    of 512 + 128 phi, in steps of 128. The backbone's multipliers lie on a line between those of the
    published EfficientNets, and grow by 1.1 (width) and 1.2 (depth) for each step beyond B7.
    """
    last = len(MULTIPLIERS) - 1
    width, depth = (
        float(np.interp(phi, range(last + 1), column)) for column in zip(*MULTIPLIERS, strict=True)
    )
    beyond = max(0.0, phi - last)
    return Scaled(
        width=width * _WIDER**beyond,
        depth=depth * _DEEPER**beyond,
        image_size=_COARSEST * _nearest(4 + phi),
        channels=_DIVISOR * _nearest(64 * 1.35**phi / _DIVISOR),
        cells=3 + _nearest(phi),
        repeats=3 + int(phi / 3 + 1e-9),
    )


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)


def backbone(
    width: float, depth: float, *, lite: bool = False
) -> tuple[int, tuple[tuple[Block, ...], ...]]:
    """Channels of the stem, and the blocks of an EfficientNet; Lite keeps its ends' sizes."""
    stem = _STEM if lite else _channels(_STEM * width)
    inputs, stages = stem, []
    for index, (channels, count, kernel, expansion) in enumerate(_STAGES):
        outputs, blocks = _channels(channels * width), []
        fixed = lite and index in (0, len(_STAGES) - 1)
        for _ in range(count if fixed else math.ceil(count * depth)):
            squeezed = 0 if lite else round(inputs / 4)
            hidden = inputs * expansion
            blocks.append(Block(inputs, hidden, outputs, kernel, squeezed, expansion > 1))
            inputs = outputs
        stages.append(tuple(blocks))
    return stem, tuple(stages)


def _channels(wanted: float) -> int:
    """A multiple of 8, the nearest, but none that takes away more than a tenth."""
    rounded = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * wanted else rounded
