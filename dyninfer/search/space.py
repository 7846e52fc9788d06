"""The published search space: where a search starts, and what a mutation may change.

Published structures do not all lie in it: they were found with other settings of the same tool.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from dyninfer.search.structure import Block, Structure

START = Structure(
    (
        Block(3, 32, 3, 2),
        Block(32, 256, 3, 2, 1, 64),
        Block(256, 512, 3, 2, 1, 128),
        Block(512, 768, 3, 2, 1, 256),
        Block(768, 1024, 3, 1, 1, 256),
        Block(1024, 2048, 3, 2, 1, 512),
    )
)
"""The network that the published search for ResNet-50's budget starts from."""

ROUNDS = 2
"""Changes of a mutation."""
_CHANNEL_STEPS = (1.5, 1.25, 0.8, 0.6, 0.5)
_DEPTH_STEPS = (-2, -1, 1, 2)
_KERNELS = (3, 5)
_DIVISOR = 8
_MOST_CHANNELS = 2048
_MOST_OF_STEM = 32
_WIDENING = 4  # a block has at most as many times the channels of the one before
_NARROWING = 10  # and its width is at least this part of them
_DEEPEST_FIRST = 3  # bottlenecks of the first block after the stem
_SHARE_OF_MAP = 1.5  # a kernel times this is no larger than the map


class Attribute(str, Enum):
    """What a mutation may change of a block."""

    OUTPUTS = "out"
    WIDTH = "btn"
    KERNEL = "k"
    DEPTH = "L"


_OF_STEM = (Attribute.OUTPUTS,)
COARSE = (Attribute.OUTPUTS, Attribute.KERNEL, Attribute.WIDTH, Attribute.DEPTH)
FINE = (Attribute.OUTPUTS, Attribute.WIDTH)


@dataclass(frozen=True)
class Space:
    """What every mutation keeps to.

    Attributes:
        layers: the budget of convolutions, which the blocks' greatest depth follows from.
        side: the shorter side of the images in pixels, which kernels are not to be too large for.
    """

    layers: int
    side: int

    def mutated(self, structure: Structure, rng: random.Random, *, fine: bool = False) -> Structure:
        """A structure with :data:`ROUNDS` changes of one attribute of one block each, drawn.

        With ``fine`` neither kernels nor depths change. It may be the same again.
        """
        for _ in range(ROUNDS):
            index = rng.randrange(len(structure.blocks))
            attributes = (FINE if fine else COARSE) if index else _OF_STEM
            blocks = list(structure.blocks)
            blocks[index] = _CHANGES[rng.choice(attributes)](self, structure, index, rng)
            if index + 1 < len(blocks):
                blocks[index + 1] = replace(blocks[index + 1], inputs=blocks[index].outputs)
            structure = Structure(tuple(blocks))
        return structure

    def _outputs(self, structure: Structure, index: int, rng: random.Random) -> Block:
        block = structure.blocks[index]
        most = _MOST_CHANNELS if index else _MOST_OF_STEM
        least, outputs = _DIVISOR, _stepped(block.outputs, rng)
        if index:
            outputs = min(max(outputs, block.inputs), _WIDENING * block.inputs)
        if index + 1 < len(structure.blocks):
            following = structure.blocks[index + 1].outputs
            most, least = min(most, following), _rounded(following / _WIDENING)
        outputs = min(max(outputs, least), most)
        return _with_width(replace(block, outputs=outputs), block.width)

    def _width(self, structure: Structure, index: int, rng: random.Random) -> Block:
        block = structure.blocks[index]
        return _with_width(block, _stepped(block.width, rng))

    def _kernel(self, structure: Structure, index: int, rng: random.Random) -> Block:
        block = structure.blocks[index]
        kernel = rng.choice([kernel for kernel in _KERNELS if kernel != block.kernel])
        side = self.side // structure.strides[index - 1]
        return replace(block, kernel=_fitting(kernel, side))

    def _depth(self, structure: Structure, index: int, rng: random.Random) -> Block:
        block = structure.blocks[index]
        most = _DEEPEST_FIRST
        if index > 1:
            most = self.layers // 3 // (len(structure.blocks) - 2)
        depth = block.depth + rng.choice(_DEPTH_STEPS)
        return replace(block, depth=max(1, min(depth, most)))


_CHANGES: dict[Attribute, Callable[[Space, Structure, int, random.Random], Block]] = {
    Attribute.OUTPUTS: Space._outputs,
    Attribute.WIDTH: Space._width,
    Attribute.KERNEL: Space._kernel,
    Attribute.DEPTH: Space._depth,
}


def kernels_at(side: int) -> set[int]:
    """Those that a mutation can give a block whose input's shorter side is ``side``."""
    return {_fitting(kernel, side) for kernel in _KERNELS}


def _fitting(kernel: int, side: int) -> int:
    while kernel > 1 and _SHARE_OF_MAP * kernel > side:
        kernel -= 2
    return kernel


def _with_width(block: Block, width: int) -> Block:
    """A bottleneck with its width between a tenth of its channels and all of them."""
    if not block.width:
        return block
    least = -(-block.outputs // (_NARROWING * _DIVISOR)) * _DIVISOR
    return replace(block, width=max(least, min(width, block.outputs)))


def _stepped(channels: int, rng: random.Random) -> int:
    return _rounded(channels * rng.choice(_CHANNEL_STEPS))


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8."""
    return max(_DIVISOR, int(channels / _DIVISOR + 0.5) * _DIVISOR)
