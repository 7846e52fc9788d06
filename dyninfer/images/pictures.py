"""What callers pass as an image: a path or an array, one or many, timed where it is decoded."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.images.reading import check_image, read_image
from dyninfer.types import ImageArray

ImageLike = str | os.PathLike[str] | npt.NDArray[Any]
PathOrImage = Path | ImageArray
"""A picture of the project's own: its file, or (h, w, 3) uint8 BGR."""


class Picture(NamedTuple):
    """(h, w, 3) uint8 BGR, and the milliseconds it took to decode; None where it came decoded."""

    image: ImageArray
    decode_ms: float | None = None


def take_picture(image: ImageLike) -> Picture:
    """Read a path, or check an array.

    Raises:
        InputError: it is neither, cannot be read, or is not a picture.
    """
    if isinstance(image, np.ndarray):
        return Picture(check_image(image))
    if isinstance(image, (str, os.PathLike)):
        start = time.perf_counter_ns()
        decoded = read_image(image)
        return Picture(decoded, (time.perf_counter_ns() - start) / 1e6)
    raise InputError(f"an image is {type(image).__name__}, expected a path or a uint8 BGR array")


def take_numbered(image: ImageLike, index: int, count: int) -> Picture:
    """As :func:`take_picture`, with an error that tells which image of a list is meant."""
    try:
        return take_picture(image)
    except InputError as error:
        raise InputError(f"images[{index}] of {count}: {error}") from None
