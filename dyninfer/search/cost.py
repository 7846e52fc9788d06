"""What a structure costs: parameters, multiply-accumulates, the search's own flops, layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dyninfer.errors import InputError
from dyninfer.search.structure import STRIDE, Block, Structure


@dataclass(frozen=True)
class Cost:
    """Of a structure, or of a part of it.

    Attributes:
        parameters: weights of convolutions, and two for each channel of a batch norm.
        macs: multiply-accumulates of an image, of convolutions alone.
        flops: those, batch norms, ReLUs and average pools, as the published search counts them,
            whose budgets are in this number: of a convolution with ``out`` channels, 2 ``out`` for
            its batch norm and ``out`` for a ReLU at each place, and of a pool an addition for each
            number that goes in.
        layers: convolutions; projections of shortcuts do not count.
    """

    parameters: int
    macs: int
    flops: int
    layers: int


def cost_of(structure: Structure, image_size: tuple[int, int]) -> Cost:
    """What a structure costs for an image of ``image_size`` (height, width).

    Raises:
        InputError: a side is no multiple of 32.
    """
    check_size(image_size)
    tiles = image_size[0] * image_size[1] // STRIDE**2
    parts = [
        cost_of_block(block, after // block.stride)
        for block, after in zip(structure.blocks, structure.strides, strict=True)
    ]
    return Cost(
        parameters=sum(part.parameters for part in parts),
        macs=tiles * sum(part.macs for part in parts),
        flops=tiles * sum(part.flops for part in parts),
        layers=sum(part.layers for part in parts),
    )


@lru_cache(maxsize=1 << 16)
def cost_of_block(block: Block, stride: int) -> Cost:
    """What a block costs for each 32x32 pixels of an image, in which its input has ``stride``."""
    found = [(conv, (STRIDE // conv.stride) ** 2) for conv in block.convolutions(stride)]
    pooled = block.inputs * (STRIDE // stride) ** 2 if block.width and block.stride == 2 else 0
    return Cost(
        parameters=sum(conv.weights + 2 * conv.outputs for conv, _ in found),
        macs=sum(conv.weights * places for conv, places in found),
        flops=sum((conv.weights + 3 * conv.outputs) * places for conv, places in found) + pooled,
        layers=sum(conv.main for conv, _ in found),
    )


def check_size(image_size: tuple[int, int]) -> None:
    """Refuse sizes at which a block's two ways would make maps of different sizes.

    Raises:
        InputError: a side is no multiple of 32.
    """
    if any(side < 1 or side % STRIDE for side in image_size):
        near = "x".join(str(max(1, round(side / STRIDE)) * STRIDE) for side in image_size)
        raise InputError(
            f"the image size is {image_size[0]}x{image_size[1]}, expected multiples of {STRIDE}, "
            f"or maps of odd sizes would not fit their shortcuts; the nearest is {near}"
        )
