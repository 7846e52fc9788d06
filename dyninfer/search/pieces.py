"""The pieces whose times make the time of a backbone, as a device's table knows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dyninfer.search.cost import cost_of_block
from dyninfer.search.structure import STRIDE, Block, Structure


class Kind(str, Enum):
    """What a piece is.

    ``DOWN`` is a block's first bottleneck with a stride of 2, ``FLAT`` one with a stride of 1,
    ``NEXT`` any after it, and ``GIVEN`` what it takes to give a map on to whoever reads it.
    """

    STEM = "stem"
    DOWN = "down"
    FLAT = "flat"
    NEXT = "next"
    GIVEN = "given"


@dataclass(frozen=True)
class Piece:
    """A part of a backbone; ``stride`` is that of its result in the image.

    ``kernel`` and ``width`` are 0 for what has none.
    """

    kind: Kind
    stride: int
    kernel: int
    inputs: int
    outputs: int
    width: int

    @property
    def block(self) -> Block:
        """What it is, or is a part of."""
        stride = 1 if self.kind in (Kind.FLAT, Kind.NEXT) else 2
        return Block(self.inputs, self.outputs, self.kernel, stride, 1, self.width)

    @property
    def work(self) -> int:
        """Multiply-accumulates for each 32x32 pixels of an image, or numbers where there are none.

        Pieces of one kind that are alike take about as long for each.
        """
        if self.kind is Kind.GIVEN:
            places = STRIDE // self.stride
            return self.outputs * places * places
        block = self.block
        macs = cost_of_block(block, self.stride // block.stride).macs
        if self.kind is not Kind.NEXT:
            return macs
        return cost_of_block(replace(block, depth=2), self.stride).macs - macs

    @property
    def shape(self) -> tuple[float, ...]:
        """Where it is among others of its kind, stride and kernel: channels, and shares of them."""
        if self.kind in (Kind.STEM, Kind.GIVEN):
            return (float(self.outputs),)
        shares = (self.outputs, self.width / self.outputs, self.inputs / self.outputs)
        return shares[:2] if self.kind is Kind.NEXT else shares

    def __str__(self) -> str:
        if self.kind is Kind.GIVEN:
            return f"a map of stride {self.stride}"
        what = "a stem" if self.kind is Kind.STEM else f"a bottleneck ({self.kind.value})"
        return f"{what} of kernel {self.kernel} at stride {self.stride}"


def pieces_of_block(block: Block, after: int) -> Iterator[tuple[Piece, int]]:
    """Its pieces with how often each is there; ``after`` is the stride of its result."""
    kind = Kind.STEM if not block.width else Kind.DOWN if block.stride == 2 else Kind.FLAT
    first = Piece(kind, after, block.kernel, block.inputs, block.outputs, block.width)
    yield first, 1
    if block.depth > 1:
        yield replace(first, kind=Kind.NEXT, inputs=block.outputs), block.depth - 1


def given_pieces(structure: Structure) -> list[Piece]:
    """Of the maps C2 to C5, which a backbone gives on."""
    ends = structure.stage_ends[1:]
    return [given(structure.strides[end], structure.blocks[end].outputs) for end in ends]


def given(stride: int, channels: int) -> Piece:
    """A map that is given on."""
    return Piece(Kind.GIVEN, stride, 0, channels, channels, 0)
