"""What callers pass as an image: paths, arrays, encoded bytes, pictures of Pillow.

What else they may have is refused with the line to write instead. Pillow and PyTorch are never
imported: whoever passes an object of theirs has done that.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.images.pictures import MAX_PIXELS, check_image, decode_image, read_image
from dyninfer.plain_text import counted
from dyninfer.types import ImageArray, shown

logger = logging.getLogger("dyninfer")


class PillowImage(Protocol):
    """What is used of ``PIL.Image.Image``."""

    @property
    def mode(self) -> str:
        """How pixels are stored."""

    def convert(self, mode: str) -> Any:
        """The picture with its pixels stored in another way."""


ImageLike = str | os.PathLike[str] | npt.NDArray[Any] | bytes | bytearray | memoryview | PillowImage
EXPECTED = (
    "the path of a picture, its encoded bytes, a Pillow image, or an array (height, width, 3) "
    "of uint8 BGR"
)
_ENCODED = (bytes, bytearray, memoryview)


class Picture(NamedTuple):
    """(h, w, 3) uint8 BGR, and the milliseconds it took to decode; None where it came decoded."""

    image: ImageArray
    decode_ms: float | None = None


def is_list(images: object) -> bool:
    """Whether several images are meant, and not one."""
    return isinstance(images, Sequence) and not isinstance(images, (str, *_ENCODED))


def take_picture(image: object, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read or decode a picture of at most ``max_pixels``, convert one of Pillow, or check an array.

    A picture of Pillow is taken as it is, as arrays are: it may have been opened without turning it
    as its orientation tag says, and boxes are in the pixels that the caller sees.

    Raises:
        InputError: it is none of these, cannot be read, or is not a picture.
    """
    if isinstance(image, np.ndarray):
        return Picture(check_image(image))
    start = time.perf_counter_ns()
    if isinstance(image, (str, os.PathLike)):
        decoded = read_image(image, max_pixels)
    elif isinstance(image, _ENCODED):
        decoded = _decode(bytes(image), max_pixels)
    elif _is_of("PIL.Image", "Image", image):
        decoded = _from_pillow(image)
    else:
        raise InputError(f"an image is {_name(image)}, expected {EXPECTED}{_instead(image)}")
    return Picture(decoded, (time.perf_counter_ns() - start) / 1e6)


def take_or_skip(
    image: object, max_pixels: int, *, skip: bool, place: tuple[int, int] | None = None
) -> Picture | None:
    """As :func:`take_picture`, or a warning and None.

    ``place`` is the image's position in a list and how many there are, which messages begin with.
    """
    try:
        return take_picture(image, max_pixels)
    except InputError as error:
        where = "" if place is None else f"images[{place[0]}] of {place[1]}: "
        if not skip:
            raise InputError(f"{where}{error}") from None
        logger.warning("%s%s; skipped", where, error)
        return None


def _decode(data: bytes, max_pixels: int) -> ImageArray:
    try:
        return decode_image(data, f"an image of {counted(len(data), 'byte')}", max_pixels)
    except InputError as error:
        if os.path.exists(data):  # noqa: PTH110  # a Path takes no bytes
            raise InputError(
                f"{error}: {shown(data)}, the path of a file; pass it as text: os.fsdecode(path)"
            ) from None
        raise


def _from_pillow(image: Any) -> ImageArray:
    """The pixels as BGR; 16 bits become the upper 8 of them, as where OpenCV reads a file."""
    try:
        if image.mode.startswith("I;16"):
            return check_image((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise InputError(
                f"an image is a Pillow image with mode {image.mode!r}, whose range is not "
                "known; scale it to 0 to 255 and pass image.convert('L')"
            )
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    except (OSError, ValueError, SyntaxError) as error:  # it is read only now
        raise InputError(f"a Pillow image cannot be decoded: {error}") from None


def _is_of(module: str, name: str, value: object) -> bool:
    """Whether a value is of another library's class, which is imported if it is."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _name(value: object) -> str:
    kind = type(value).__name__
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"{kind} {tuple(shape)} of {dtype}" if shape is not None else kind


def _instead(value: Any) -> str:
    """What to write for values that people have in the place of an image."""
    hint = ""
    if value is None:
        hint = (
            "cv2.imread gives None for what it cannot read, where the path itself would be read; "
            "VideoCapture.read does so after the last frame of a video"
        )
    elif _is_of("torch", "Tensor", value):
        hint = _of_tensor(value)
    elif isinstance(value, cv2.VideoCapture):
        hint = "read its frames with read(), and pass each"
    elif isinstance(value, bool):
        hint = "cv2.VideoCapture.read() returns whether it has a frame and the frame: pass that"
    elif isinstance(value, int):
        hint = f"a camera's frames are read by detector.stream('camera:{value}')"
    elif hasattr(value, "read"):
        hint = "pass what the file holds: image.read()"
    elif isinstance(value, Mapping):
        hint = "prepared tensors by name go to Detector.infer"
    elif hasattr(value, "__array__"):
        hint = "write numpy.asarray(image)"
    elif isinstance(value, Iterable):
        hint = "write list(images), or Detector.stream(images) for one after the other"
    return f"; {hint}" if hint else ""


def _of_tensor(tensor: Any) -> str:
    """How a tensor of PyTorch becomes a BGR array; only its owner knows the order of colours."""
    if tensor.is_floating_point():
        return (
            "a prepared batch (N, 3, H, W) goes to detector.infer({'images': batch.numpy()}); a "
            "picture (3, H, W) in RGB from 0 to 1 is "
            "(image * 255).round().byte().permute(1, 2, 0).flip(-1).cpu().numpy()"
        )
    if tensor.ndim == 4:
        return "a batch in RGB is [t.permute(1, 2, 0).flip(-1).cpu().numpy() for t in images]"
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3) and tensor.shape[2] not in (1, 3):
        return (
            "in RGB, as torchvision reads it, write image.permute(1, 2, 0).flip(-1).cpu().numpy()"
        )
    return "in BGR, write image.cpu().numpy(); in RGB, image.flip(-1).cpu().numpy()"
