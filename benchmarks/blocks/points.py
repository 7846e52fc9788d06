"""Which pieces of backbones are measured: those that the published search space can come to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from dyninfer.search.cost import cost_of
from dyninfer.search.pieces import Kind, Piece, given, pieces_of_block
from dyninfer.search.space import START, Space, kernels_at
from dyninfer.search.structure import Structure

WIDTHS = (1 / 16, 3 / 16, 1 / 2)
"""Shares of a bottleneck's channels that it has within."""
INPUTS = (1 / 8, 1)
"""And that go into the first of a block."""
_OUTPUTS = {
    4: (16, 64, 256),
    8: (32, 128, 512),
    16: (64, 256, 1024),
    32: (128, 512, 2048),
}
"""Channels by the stride of a map. Where the space goes beyond, the speed changes no more."""
_OF_STEM, _KERNELS_OF_STEM = (8, 16, 32, 64), (3, 7)
_HELD_OUT = 6  # of each stride
_SCALES = (1, 2, 4, 8)  # the start network's channels are divided by, for networks
_ROUNDS = 12  # of changes of each network
_SEED = 0


def grid(side: int) -> list[Piece]:
    """All that is interpolated from, for images whose shorter side is ``side`` pixels."""
    stem = product(_KERNELS_OF_STEM, _OF_STEM)
    found = [Piece(Kind.STEM, 2, kernel, 3, outputs, 0) for kernel, outputs in stem]
    for stride, outputs in _OUTPUTS.items():
        found += [given(stride, channels) for channels in outputs]
        # a kernel is chosen for the map that goes into a block; those that a search starts from
        # stay until they are changed, though they are too large for the maps of small images
        chosen = {k for before in (stride // 2, stride) for k in kernels_at(side // before)}
        kernels = sorted(chosen | {block.kernel for block in START.blocks if block.width})
        for kernel, channels, share in product(kernels, outputs, WIDTHS):
            width = int(channels * share)
            found.append(Piece(Kind.NEXT, stride, kernel, channels, channels, width))
            for kind, part in product((Kind.DOWN, Kind.FLAT), INPUTS):
                inputs = int(channels * part)
                found.append(Piece(kind, stride, kernel, inputs, channels, width))
    return found


def networks(side: int) -> list[Structure]:
    """Structures of the space, from the size of the start network down to a sixty-fourth of it."""
    rng, space = random.Random(_SEED), Space(layers=91, side=side)
    found = []
    for scale in _SCALES:
        structure = _narrowed(scale)
        most = 1.5 * cost_of(structure, (side, side)).macs
        changed = 0
        while changed < _ROUNDS:
            mutated = space.mutated(structure, rng)
            if cost_of(mutated, (side, side)).macs <= most:
                structure, changed = mutated, changed + 1
        found.append(structure)
    return found


def held_out(structures: list[Structure], side: int) -> list[Piece]:
    """Pieces that structures like these are made of, as they are drawn, and none of the grid."""
    rng, space = random.Random(_SEED), Space(layers=91, side=side)
    of_stride: dict[int, list[Piece]] = {stride: [] for stride in _OUTPUTS}
    known = set(grid(side))
    while any(len(pieces) < _HELD_OUT for pieces in of_stride.values()):
        structure = space.mutated(rng.choice(structures), rng)
        for piece in _pieces(structure):
            found = of_stride.get(piece.stride, [])
            if len(found) < _HELD_OUT and piece not in known and piece.kind is not Kind.STEM:
                found.append(piece)
                known.add(piece)
    return [piece for found in of_stride.values() for piece in found]


def _pieces(structure: Structure) -> Iterator[Piece]:
    for block, after in zip(structure.blocks, structure.strides, strict=True):
        for piece, _ in pieces_of_block(block, after):
            yield piece


def _narrowed(scale: int) -> Structure:
    """The start network with a part of its channels."""
    blocks = list(START.blocks)
    for index, block in enumerate(blocks):
        inputs = blocks[index - 1].outputs if index else block.inputs
        blocks[index] = replace(
            block,
            inputs=inputs,
            outputs=max(8, block.outputs // scale),
            width=block.width and max(8, block.width // scale),
        )
    return Structure(tuple(blocks))
