"""The published structures, and what is known of them."""

from __future__ import annotations

from dyninfer.search.structure import Block, Structure

SMALL = Structure(
    (
        Block(3, 32, 3, 2),
        Block(32, 48, 5, 2, 2, 32),
        Block(48, 272, 3, 2, 4, 120),
        Block(272, 1024, 5, 2, 10, 80),
        Block(1024, 2048, 3, 2, 10, 240),
    )
)
MEDIUM = Structure(
    (
        Block(3, 64, 3, 2),
        Block(64, 120, 3, 2, 2, 64),
        Block(120, 512, 5, 2, 10, 72),
        Block(512, 1632, 5, 2, 10, 112),
        Block(1632, 2048, 5, 2, 8, 184),
    )
)
LARGE = Structure(
    (
        Block(3, 80, 3, 2),
        Block(80, 144, 3, 2, 2, 80),
        Block(144, 608, 5, 2, 12, 88),
        Block(608, 1912, 5, 2, 12, 136),
        Block(1912, 2400, 5, 2, 10, 220),
    )
)
RESNET_50 = Structure(
    (
        Block(3, 64, 7, 2),
        Block(64, 256, 3, 2, 3, 64),
        Block(256, 512, 3, 2, 4, 128),
        Block(512, 1024, 3, 2, 6, 256),
        Block(1024, 2048, 3, 2, 3, 512),
    )
)
NARROW = Structure(
    (
        Block(3, 16, 3, 2),
        Block(16, 24, 5, 2, 2, 16),
        Block(24, 48, 3, 2, 2, 24),
        Block(48, 64, 5, 2, 3, 24),
        Block(64, 96, 3, 2, 2, 32),
    )
)
"""Of tests/vectors/zendet-narrow.txt."""
