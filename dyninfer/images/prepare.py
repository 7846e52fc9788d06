"""The pixels' way into a tensor: resized, split into channels and normalised, with few passes."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any

import cv2
import numpy as np

from dyninfer.types import AnyArray, Float32Array, ImageArray


class Scratch:
    """Memory that preparing images uses again, and which padding it left where.

    For one thread at a time, and for the tensors in one buffer, as those of a batch are; with
    another buffer, or tensors that lie in it otherwise, it starts anew. Between two calls nobody
    else may write to the buffer: padding that was written once is not written again.
    """

    def __init__(self) -> None:
        self._bytes: ImageArray = np.empty(0, np.uint8)
        self._images: tuple[ImageArray, ImageArray, tuple[ImageArray, ...]] | None = None
        self._buffer: weakref.ref[Any] | None = None
        self._layout: Hashable = None
        self._padded: dict[int, Hashable] = {}

    def images(
        self, height: int, width: int
    ) -> tuple[ImageArray, ImageArray, tuple[ImageArray, ...]]:
        """An image (height, width, 3), planes (3, height, width), and each: views of one block."""
        if self._images is None or self._images[1].shape[1:] != (height, width):
            size = 3 * height * width
            if self._bytes.size < 2 * size:
                self._bytes = np.empty(2 * size, np.uint8)
            interleaved, planes = self._bytes[: 2 * size].reshape(2, size)
            planes = planes.reshape(3, height, width)
            self._images = interleaved.reshape(height, width, 3), planes, tuple(planes)
        return self._images

    def pad(self, tensor: AnyArray, window: tuple[int, ...], values: tuple[float, ...]) -> None:
        """Fill a C-contiguous tensor outside a window (left, top, right, bottom), unless it is.

        One value is for each channel.
        """
        if not self._padded and window == (0, 0, tensor.shape[2], tensor.shape[1]):
            return  # as of a camera whose pictures have the tensor's own sides
        buffer = tensor if tensor.base is None else tensor.base
        address = int(tensor.__array_interface__["data"][0])
        layout = (tensor.shape, address % tensor.nbytes)  # tensors of one layout do not overlap
        if self._buffer is None or self._buffer() is not buffer or self._layout != layout:
            self._padded.clear()
            self._buffer, self._layout = _weak(buffer), layout
        if self._buffer is not None and self._padded.get(address) == (window, values):
            return
        self._padded.pop(address, None)
        left, top, right, bottom = window
        for plane, value in zip(tensor, values, strict=True):
            plane[:top] = value
            plane[bottom:] = value
            plane[top:bottom, :left] = value
            plane[top:bottom, right:] = value
        self._padded[address] = (window, values)


def _weak(buffer: Any) -> weakref.ref[Any] | None:
    """A reference that does not keep the buffer alive, if its type allows one."""
    try:
        return weakref.ref(buffer)
    except TypeError:
        return None


def split_channels(
    image: ImageArray, size: tuple[int, int], scratch: Scratch, *, turned: bool
) -> ImageArray:
    """The planes (3, h, w) of an image (h, w, 3), resized to ``size`` (width, height).

    ``turned`` gives the last channel first.
    """
    resized, planes, each = scratch.images(size[1], size[0])
    if size != (image.shape[1], image.shape[0]):
        cv2.resize(image, size, dst=resized, interpolation=cv2.INTER_LINEAR)
        image = resized
    cv2.split(image, each[::-1] if turned else each)
    return planes


def normalise(
    planes: ImageArray,
    factors: tuple[float, ...],
    shifts: tuple[float, ...],
    out: Float32Array,
) -> None:
    """Write ``plane * factor + shift`` for each of the planes, (3, h, w) in all.

    Channels that have the same factor and shift are one plane, where nothing lies between them.
    """
    alike = factors.count(factors[0]) == shifts.count(shifts[0]) == len(factors)
    if alike and planes.flags.c_contiguous and out.flags.c_contiguous:
        width = out.shape[2]
        _normalise(planes.reshape(-1, width), factors[0], shifts[0], out.reshape(-1, width))
        return
    for plane, factor, shift, written in zip(planes, factors, shifts, out, strict=True):
        _normalise(plane, factor, shift, written)


def _normalise(plane: ImageArray, factor: float, shift: float, out: Float32Array) -> None:
    """In one pass with the conversion to float32.

    OpenCV in Python has no such conversion by itself; its normalisation of a range is one, where
    it is told the range that the plane's own becomes. NumPy takes twice as long.
    """
    low, high, _, _ = cv2.minMaxLoc(plane)
    sign = 1.0 if factor > 0 else -1.0  # a range that is turned around would be turned back
    first, last = sign * (low * factor + shift), sign * (high * factor + shift)
    cv2.normalize(plane, out, first, last, cv2.NORM_MINMAX, cv2.CV_32F)
    if sign < 0:
        np.negative(out, out=out)
