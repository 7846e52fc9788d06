"""The pictures that are run: made up, or the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.outcomes import ReadingNotes, pictures_to_time, read_all
from dyninfer.types import Float32Array, ImageArray

DEFAULT_SIZE = (720, 1280)
SYNTHETIC_COUNT = 8
DEFAULT_KEPT = 64
OF_THE_USER = "own pictures"


@dataclass(frozen=True)
class BenchPictures:
    """Pictures in memory, and where they came from.

    Attributes:
        what: in words that go after their number.
        arrays: (h, w, 3) uint8 BGR each, at least one.
        samples: their files and what is in them; None for made-up ones.
        warnings: what was left out, one line each.
    """

    what: str
    arrays: tuple[ImageArray, ...]
    samples: Samples | None = None
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> Sequence[Path]:
        """Their files, in the order of ``arrays``; empty for made-up ones."""
        return () if self.samples is None else [item.path for item in self.samples.items]

    @property
    def sizes(self) -> Mapping[str, int]:
        """``HxW`` -> how many, most frequent first."""
        counted = Counter(f"{array.shape[0]}x{array.shape[1]}" for array in self.arrays)
        return dict(counted.most_common())


def synthetic_pictures(height: int, width: int, seed: int = 0) -> BenchPictures:
    """Pictures that a decoder or resizer treats as photographs; there is nothing to find in them.

    There are :data:`SYNTHETIC_COUNT`: a few, and their mirror images.
    """
    rng = np.random.default_rng(seed)
    arrays: list[ImageArray] = []
    while len(arrays) < SYNTHETIC_COUNT:
        one = _photo_like(rng, height, width)
        arrays += [one, one[::-1], one[:, ::-1], one[::-1, ::-1]]
    kept = tuple(np.ascontiguousarray(array) for array in arrays[:SYNTHETIC_COUNT])
    return BenchPictures(f"synthetic pictures, {height}x{width} (height x width)", kept)


def _photo_like(rng: np.random.Generator, height: int, width: int) -> ImageArray:
    """Noise whose amplitude falls with its frequency, as that of photographs does.

    Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", J. Opt. Soc. Am. A 4 (1987): amplitude goes with 1 / frequency.
    """
    canvas = np.zeros((height, width, 3), np.float32)
    cells, amplitude = 2, 60.0
    while cells < max(height, width):
        coarse: Float32Array = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        canvas += amplitude * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        cells, amplitude = cells * 2, amplitude / 2
    return np.clip(canvas + 128, 0, 255).astype(np.uint8)


def load_pictures(
    samples: Samples, kept: int = DEFAULT_KEPT, progress: Callable[[], None] = lambda: None
) -> BenchPictures:
    """Decode at most ``kept`` pictures, spread evenly over all; the others are not read.

    Raises:
        InputError: none of them can be read.
    """
    notes = ReadingNotes()
    chosen = pictures_to_time(samples, kept)
    read = list(read_all(chosen, notes, progress))
    if not read:
        raise InputError(
            f"none of the {len(chosen)} pictures can be read: {notes.unreadable[0]}; "
            "give pictures, or leave --images out for made-up ones"
        )
    usable = notes.left_of(samples, [sample for sample, _ in read])
    return BenchPictures(OF_THE_USER, tuple(array for _, array in read), usable, usable.warnings)
