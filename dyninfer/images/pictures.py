"""Pictures: read, or checked where an array is said to be one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.files import check_regular, read_file
from dyninfer.foreign_errors import let_through
from dyninfer.images.headers import picture_size
from dyninfer.types import ImageArray

ImageLike = str | os.PathLike[str] | npt.NDArray[Any]
PathOrImage = Path | ImageArray
"""A picture of the project's own: its file, or (h, w, 3) uint8 BGR."""
SUFFIXES = frozenset(
    {".bmp", ".dib", ".jpeg", ".jpg", ".jpe", ".jp2", ".png", ".webp", ".pbm", ".pgm", ".ppm"}
    | {".tif", ".tiff"}
)
MAX_PIXELS = 100_000_000
"""Of a picture, unless the caller says otherwise: 300 MB once decoded."""
_LARGEST_PIXEL = 16  # bytes in a file: four channels of 32 bits
_HEADER_BYTES = 64 << 20  # and profiles, previews and the like


class Picture(NamedTuple):
    """(h, w, 3) uint8 BGR, and the milliseconds it took to decode; None where it came decoded."""

    image: ImageArray
    decode_ms: float | None = None


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode a picture into (h, w, 3) uint8 BGR.

    Grey, palette, alpha and 16-bit pictures are converted; the orientation tag is applied. What the
    file announces is looked at before it is decoded: small files may hold very large pictures.

    Raises:
        InputError: the file is missing, empty, a folder, a pipe or a device, not a picture, or one
            of more than ``max_pixels`` pixels.
    """
    data = _read_bytes(Path(path), max_pixels)
    size = picture_size(data)
    if size is None:
        raise InputError(f"{path} is not a picture that can be read (JPEG, PNG, ...)")
    if size[0] * size[1] > max_pixels:
        raise InputError(
            f"{path} has {size[0]} x {size[1]} pixels, expected at most {max_pixels} in all; "
            "scale it down, or allow more with max_pixels"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded: {error.err}") from None
    if image is None:
        raise InputError(f"{path} is not a picture that OpenCV can decode (JPEG, PNG, ...)")
    return image.astype(np.uint8, copy=False)


def _read_bytes(path: Path, max_pixels: int) -> bytes:
    try:
        size = check_regular(path)  # others are not even opened
        data = read_file(path, min(size, _HEADER_BYTES + _LARGEST_PIXEL * max_pixels))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise InputError(
            f"{path} is a folder, expected a picture; pass the files in it one by one"
        ) from None
    except (OSError, ValueError) as error:
        let_through(error)
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)[:200]!r} cannot be read: {reason}") from None
    if not data:
        raise InputError(f"{path} is empty (0 bytes), expected a picture")
    return data


def check_max_pixels(max_pixels: int) -> int:
    """``max_pixels`` itself.

    Raises:
        InputError: it is no whole number from 1 up.
    """
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels is {max_pixels!r}, expected a whole number from 1 up")
    return max_pixels


def check_image(image: npt.NDArray[Any]) -> ImageArray:
    """Return an array as (h, w, 3) uint8 BGR; grey and BGRA arrays are converted.

    Raises:
        InputError: another dtype or number of axes or channels, or no pixels.
    """
    if image.dtype != np.uint8:
        hint = {
            np.dtype(np.uint16): "; scale 16-bit pictures down, for example with image // 257",
            np.dtype(np.float32): "; prepared tensors go to Detector.infer",
            np.dtype(np.float64): "; prepared tensors go to Detector.infer as float32",
        }.get(image.dtype, "")
        raise InputError(f"an image array is {image.dtype}, expected uint8{hint}")
    if image.ndim == 4:
        raise InputError(
            f"an image array has shape {image.shape}, expected (height, width, 3); "
            "pass a batch as a list of images"
        )
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if channels not in (1, 3, 4):
        hint = "; this looks channels first" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise InputError(
            f"an image array has shape {image.shape}, expected (height, width, 3) BGR{hint}"
        )
    if 0 in image.shape:
        raise InputError(f"an image array has shape {image.shape}, which holds no pixels")
    if channels == 3:
        return image
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return cv2.cvtColor(np.ascontiguousarray(image), code).astype(np.uint8, copy=False)


def find_images(folder: Path) -> list[Path]:
    """All pictures below ``folder``, by their suffix, sorted; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def take_picture(image: ImageLike, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a path to a picture of at most ``max_pixels``, or check an array.

    Raises:
        InputError: it is neither, cannot be read, or is not a picture.
    """
    if isinstance(image, np.ndarray):
        return Picture(check_image(image))
    if isinstance(image, (str, os.PathLike)):
        start = time.perf_counter_ns()
        decoded = read_image(image, max_pixels)
        return Picture(decoded, (time.perf_counter_ns() - start) / 1e6)
    raise InputError(f"an image is {type(image).__name__}, expected a path or a uint8 BGR array")


def take_numbered(
    image: ImageLike, index: int, count: int, max_pixels: int = MAX_PIXELS
) -> Picture:
    """As :func:`take_picture`, with an error that tells which image of a list is meant."""
    try:
        return take_picture(image, max_pixels)
    except InputError as error:
        raise InputError(f"images[{index}] of {count}: {error}") from None
