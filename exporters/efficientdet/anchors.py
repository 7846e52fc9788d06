"""The boxes that predictions are relative to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dyninfer.types import Float64Array

Aspect = float | tuple[float, float]
"""Width by height, or factors of width and height: 2 stands for the roots of 2 and 1/2."""
OCTAVES = 3
ASPECTS: tuple[Aspect, ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


def level_sizes(image_size: tuple[int, int], levels: int, first: int = 3) -> list[tuple[int, int]]:
    """Height and width of every level, each half of the one before, rounded up."""
    height, width = image_size
    sizes = []
    for level in range(1, first + levels):
        height, width = -(-height // 2), -(-width // 2)
        if level >= first:
            sizes.append((height, width))
    return sizes


def make_anchors(
    image_size: tuple[int, int],
    levels: int,
    scale: float,
    octaves: int = OCTAVES,
    aspects: Sequence[Aspect] = ASPECTS,
) -> Float64Array:
    """All anchors (A, 4) as (ymin, xmin, ymax, xmax) in pixels of the input.

    Levels from fine to coarse, in each rows, columns, octaves, aspects. A level's stride is the
    image's size by the level's, which is no whole number where the image's is no multiple of it.
    """
    shapes = np.array(
        [
            [2 ** (octave / octaves) * side for side in _sides(aspect)]
            for octave in range(octaves)
            for aspect in aspects
        ]
    )  # width and height of each anchor of a place, in strides
    rows = []
    for size in level_sizes(image_size, levels):
        step_y, step_x = (whole / part for whole, part in zip(image_size, size, strict=True))
        y, x = ((np.arange(n) + 0.5) * s for n, s in zip(size, (step_y, step_x), strict=True))
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), 2).reshape(-1, 1, 2)
        halves = scale / 2 * shapes[:, ::-1] * np.array([step_y, step_x])
        rows.append(np.concatenate([centres - halves, centres + halves], 2).reshape(-1, 4))
    return np.concatenate(rows)


def _sides(aspect: Aspect) -> tuple[float, float]:
    return aspect if isinstance(aspect, tuple) else (math.sqrt(aspect), 1 / math.sqrt(aspect))
