"""Pictures: read, or checked where an array is said to be one."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.files import check_regular, read_file
from dyninfer.foreign_errors import let_through
from dyninfer.images.formats import describe_unread, is_cut_off, read_format
from dyninfer.images.headers import picture_size
from dyninfer.plain_text import counted
from dyninfer.types import ImageArray, is_whole, shown

PathOrImage = Path | ImageArray
"""A picture of the project's own: its file, or (h, w, 3) uint8 BGR."""
MAX_PIXELS = 100_000_000
"""Of a picture, unless the caller says otherwise: 300 MB once decoded."""
_LARGEST_PIXEL = 16  # bytes in a file: four channels of 32 bits
_HEADER_BYTES = 64 << 20  # and profiles, previews and the like


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode a picture's file into (h, w, 3) uint8 BGR; see :func:`decode_image`.

    Raises:
        InputError: the file is missing, empty, a folder, a pipe or a device, not a picture, or one
            of more than ``max_pixels`` pixels.
    """
    return decode_image(_read_bytes(path, max_pixels), os.fsdecode(path), max_pixels)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode what a picture's file holds into (h, w, 3) uint8 BGR.

    Grey, palette, alpha and 16-bit pictures are converted; the orientation tag is applied; of a
    moving picture the first frame is taken. What the data announces is looked at before anything is
    decoded: small files may hold very large pictures. ``name`` stands in messages.

    Raises:
        InputError: it is not a picture, a damaged one, or one of more than ``max_pixels`` pixels.
    """
    size = picture_size(data)
    if size is None:
        raise InputError(f"{name} {_why_not(data)}")
    if size[0] * size[1] > max_pixels:
        raise InputError(
            f"{name} has {size[0]} x {size[1]} pixels, expected at most {max_pixels} in all; "
            "scale it down, or allow more with max_pixels"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise InputError(
                f"{name} has {size[0]} x {size[1]} pixels, and OpenCV decodes at most 1048576 on a "
                "side and 1073741824 in all; scale it down, or set OPENCV_IO_MAX_IMAGE_WIDTH, "
                "OPENCV_IO_MAX_IMAGE_HEIGHT and OPENCV_IO_MAX_IMAGE_PIXELS before the start"
            ) from None
        raise InputError(f"{name} cannot be decoded: {error.err}") from None
    if image is None:
        raise InputError(f"{name} {_why_not(data)}")
    return image.astype(np.uint8, copy=False)


def _why_not(data: bytes) -> str:
    """Why no picture comes of it."""
    if not data:
        return "is empty (0 bytes), expected a picture"
    known = read_format(data)
    if known and is_cut_off(data):
        return f"is a {known} picture that is cut off: it ends after {counted(len(data), 'byte')}"
    if known:
        return (
            f"is a {known} picture that is damaged, or of a kind that OpenCV {cv2.__version__} "
            "does not decode; save it again as JPEG or PNG"
        )
    kind, is_picture = describe_unread(data)
    if is_picture:
        return f"is {kind}, which is not read; convert it to JPEG or PNG"
    return f"is not a picture but {kind}"


def _read_bytes(path: str | os.PathLike[str], max_pixels: int) -> bytes:
    name = os.fsdecode(path)
    if not name.strip():
        raise InputError(f"an image is {name!r}, an empty path; expected that of a picture")
    try:
        size = check_regular(Path(name))  # others are not even opened
        return read_file(Path(name), min(size, _HEADER_BYTES + _LARGEST_PIXEL * max_pixels))
    except FileNotFoundError:
        raise InputError(_missing(name)) from None
    except IsADirectoryError:
        raise InputError(
            f"{name} is a folder, expected a picture; pass the files in it as a list"
        ) from None
    except (OSError, ValueError) as error:
        let_through(error)
        if name.startswith("data:"):
            raise InputError(_missing(name)) from None
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name[:200]!r} cannot be read: {reason}") from None


def _missing(name: str) -> str:
    """That there is no such file, and what to write where it was not meant to be one."""
    scheme = re.match(r"([a-z][a-z0-9+.]+)://|data:", name, re.IGNORECASE)
    if scheme is None:
        hint = "check the path"
        if name.startswith("~"):
            hint = "Python leaves ~ as it is: pass os.path.expanduser(path)"
        elif glob.has_magic(name):
            hint = "patterns are not expanded here: pass glob.glob(path), which is a list"
        return f"{name} does not exist; {hint}"
    if scheme[1] is None:
        write = "pass its bytes: base64.b64decode(url.partition(',')[2])"
    elif scheme[1].lower() == "file":
        write = "pass its path: url.removeprefix('file://')"
    elif scheme[1].lower() in ("http", "https", "ftp"):
        write = "pass its content: urllib.request.urlopen(url).read()"
    elif scheme[1].lower() in ("rtsp", "rtsps", "rtmp", "udp", "tcp", "rtp"):
        write = "its frames are read by detector.stream(url)"
    else:
        write = "download it, and pass its path or its bytes"
    return f"{name[:200]} is a URL, expected the path of a picture; {write}"


def check_max_pixels(max_pixels: int) -> int:
    """``max_pixels`` itself.

    Raises:
        InputError: it is no whole number from 1 up.
    """
    if not is_whole(max_pixels, 1):
        raise InputError(f"max_pixels is {shown(max_pixels)}, expected a whole number from 1 up")
    return max_pixels


def check_image(image: npt.NDArray[Any]) -> ImageArray:
    """Return an array as (h, w, 3) uint8 BGR; grey and BGRA arrays are converted.

    Raises:
        InputError: another dtype or number of axes or channels, or no pixels.
    """
    if image.dtype != np.uint8:
        hint = (
            "; pass an array of paths as a list: images.tolist()"
            if image.dtype.kind in "OUST"
            else ""
        )
        hint = {
            np.dtype(np.uint16): "; scale 16-bit pictures down, for example with image // 257",
            np.dtype(np.float32): "; prepared tensors go to Detector.infer",
            np.dtype(np.float64): "; prepared tensors go to Detector.infer as float32",
        }.get(image.dtype, hint)
        raise InputError(f"an image array is {image.dtype}, expected uint8{hint}")
    if image.ndim == 4:
        raise InputError(
            f"an image array has shape {image.shape}, expected (height, width, 3); "
            "pass a batch as a list: list(images)"
        )
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    if channels not in (1, 3, 4):
        hint = (
            "; this looks channels first: image.transpose(1, 2, 0)"
            if image.ndim == 3 and image.shape[0] == 3
            else ""
        )
        raise InputError(
            f"an image array has shape {image.shape}, expected (height, width, 3) BGR{hint}"
        )
    if 0 in image.shape:
        raise InputError(f"an image array has shape {image.shape}, which holds no pixels")
    if channels == 3:
        return image
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return cv2.cvtColor(np.ascontiguousarray(image), code).astype(np.uint8, copy=False)
