"""How an image becomes a tensor, and how boxes find their way back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.images.prepare import Scratch, normalise, split_channels
from dyninfer.types import AnyArray, Float32Array, Float64Array, ImageArray

_PIXELS, _NUMBERS = np.dtype(np.uint8), np.dtype(np.float32)
MAX_SIDE = 16_384  # pixels; far beyond any detector, well below what exhausts a machine


class ResizeMode(str, Enum):
    """How an image is fitted into the input of a stage."""

    LETTERBOX = "letterbox"
    STRETCH = "stretch"
    PAD_BOTTOM_RIGHT = "pad_bottom_right"
    CENTER_CROP = "center_crop"


class Rounding(str, Enum):
    """How the size of a resized image becomes whole pixels."""

    NEAREST = "nearest"
    TRUNCATE = "truncate"

    def __call__(self, size: float) -> int:
        """At least one pixel."""
        # a product such as 0.5714 * 640 may lie a hair below the whole number that it stands for
        return max(1, round(size) if self is Rounding.NEAREST else int(size + 1e-6))


class ColorOrder(str, Enum):
    """Order of the colour channels that a stage expects."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class Placement:
    """Where an image lies inside the tensor it was fitted into.

    A point (x, y) of the image lies at (x * scale_x + left, y * scale_y + top) in the tensor.
    The scales are those of the resized size in whole pixels, so the inverse is exact. Where the
    image was cropped, ``left`` or ``top`` is negative.
    """

    width: int
    height: int
    resized_width: int
    resized_height: int
    left: int = 0
    top: int = 0

    @cached_property
    def scale_x(self) -> float:
        """Tensor pixels per image pixel, horizontally."""
        return self.resized_width / self.width

    @cached_property
    def scale_y(self) -> float:
        """Tensor pixels per image pixel, vertically."""
        return self.resized_height / self.height

    def to_tensor(self, boxes_xyxy: Float32Array) -> Float32Array:
        """Boxes (D, 4) in image pixels -> boxes in tensor pixels."""
        scale = np.array([self.scale_x, self.scale_y] * 2)
        boxes = boxes_xyxy * scale + np.array([self.left, self.top] * 2)
        return np.asarray(boxes, np.float32)

    @cached_property
    def _way_back(self) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Offset, scale and largest value of a box's four numbers."""
        ways = ((self.left, self.top), (self.scale_x, self.scale_y), (self.width, self.height))
        offset, scale, limit = (np.array(way * 2, np.float64) for way in ways)
        return offset, scale, limit

    def to_image(self, boxes_xyxy: Float32Array) -> Float32Array:
        """Boxes (D, 4) in tensor pixels -> boxes in image pixels, clipped to the image."""
        if len(boxes_xyxy) == 1:  # NumPy takes as long for one as for hundreds
            return np.array([self._one_to_image(*boxes_xyxy.tolist()[0])], np.float32)
        offset, scale, limit = self._way_back
        boxes = boxes_xyxy - offset
        boxes /= scale
        np.maximum(boxes, 0, out=boxes)
        np.minimum(boxes, limit, out=boxes)
        return np.asarray(boxes, np.float32)

    def _one_to_image(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[float, float, float, float]:
        """As :meth:`to_image`, of a box's four numbers."""
        x, y, width, height = self.scale_x, self.scale_y, self.width, self.height
        left, right = (left - self.left) / x, (right - self.left) / x
        top, bottom = (top - self.top) / y, (bottom - self.top) / y
        if 0 <= left <= right <= width and 0 <= top <= bottom <= height:  # as most are
            return left, top, right, bottom
        return (
            min(max(left, 0.0), width),
            min(max(top, 0.0), height),
            min(max(right, 0.0), width),
            min(max(bottom, 0.0), height),
        )


@dataclass(frozen=True)
class ImageSpec:
    """What one image input of a stage expects.

    Attributes:
        height, width: of the tensor, in pixels.
        resize: how the image is fitted in.
        color_order: of the tensor's channels.
        mean, std: per channel in tensor order, in units of 0 to 255: (pixel - mean) / std.
        pad_value: level of the padding, 0 to 255; one for all channels, or one for each in tensor
            order.
        rounding: of the resized size.
        short_side: for :attr:`ResizeMode.CENTER_CROP`, to how many pixels the image's shorter side
            is resized before the tensor's size is cut from its centre; None for the tensor's own.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    height: int
    width: int
    resize: ResizeMode = ResizeMode.LETTERBOX
    color_order: ColorOrder = ColorOrder.RGB
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    pad_value: int | tuple[int, int, int] = 114
    rounding: Rounding = Rounding.NEAREST
    short_side: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(
                f"the image size is {self.height}x{self.width}, "
                f"expected sides from 1 to {MAX_SIDE} pixels"
            )
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)) or 0 in self.std:
            raise ValueError(f"mean {self.mean} and std {self.std} do not normalise an image")
        if not all(0 <= level <= 255 for level in self._pad_levels):
            raise ValueError(f"the padding is {self.pad_value}, expected levels from 0 to 255")
        if self.short_side is not None and (
            self.resize is not ResizeMode.CENTER_CROP or not 1 <= self.short_side <= MAX_SIDE
        ):
            raise ValueError(
                f"the shorter side is {self.short_side} with {self.resize.value}, expected 1 to "
                f"{MAX_SIDE} pixels, and only with {ResizeMode.CENTER_CROP.value}"
            )

    @property
    def _pad_levels(self) -> tuple[int, ...]:
        return (self.pad_value,) * 3 if isinstance(self.pad_value, int) else self.pad_value

    def place(self, width: int, height: int) -> Placement:
        """Where an image of ``width`` x ``height`` pixels goes.

        Letterbox: one scale for both axes, min(H / h, W / w), sizes rounded, centred; when the
        padding is odd, the extra pixel is at the right and at the bottom, as in the published
        DynamicDet preprocessing. Centre crop: the shorter side becomes ``short_side``, and half of
        what is too much, rounded half to even, is cut off at the left and at the top, as
        torchvision's ``Resize`` (with :attr:`Rounding.TRUNCATE`) and ``CenterCrop`` do.
        """
        return _place(self._fit, width, height)

    @cached_property
    def _fit(self) -> _Fit:
        return _Fit(self.resize, self.rounding, self.width, self.height, self.short_side)

    @cached_property
    def _normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Of each channel: pixel * factor + shift, and what the padding comes to."""
        # OpenCV computes in float32: of a factor that is rounded already it makes exactly that one
        factors = tuple(float(np.float32(1 / deviation)) for deviation in self.std)
        shifts = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        paddings = zip(self._pad_levels, factors, shifts, strict=True)
        levels = (level * factor + shift for level, factor, shift in paddings)
        return factors, shifts, tuple(levels)

    def prepare(
        self,
        image: ImageArray,
        out: AnyArray | None = None,
        scratch: Scratch | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> AnyArray:
        """Fit an image (h, w, 3) uint8 BGR into a tensor (3, H, W) float32.

        Args:
            image: the picture.
            out: written to when given, so that a batch needs no further copy. In uint8 are the
                pixels as they are, for a stage that normalises them itself.
            dtype: float32 or uint8, where there is no ``out``.
            scratch: kept beside the buffer that ``out`` lies in, it saves what need not be done
                again for every image.
        """
        if out is None:
            out = np.empty((3, self.height, self.width), dtype)
        as_pixels = out.dtype == _PIXELS
        if not (as_pixels or out.dtype == _NUMBERS) or not out.flags.c_contiguous:
            out[...] = self.prepare(image)
            return out
        scratch = Scratch() if scratch is None else scratch
        window = _window(self._fit, image.shape[1], image.shape[0])
        factors, shifts, levels = self._normalisation
        scratch.pad(out, window.bounds, self._pad_levels if as_pixels else levels)
        turned = self.color_order is ColorOrder.RGB
        planes = split_channels(image, window.resized, scratch, turned=turned)
        if window.cut is not None:
            planes = planes[window.cut]
        inside = out[window.inside]
        if as_pixels:
            inside[...] = planes
        else:
            normalise(planes, factors, shifts, inside)
        return out

    def normalised(self, pixels: ImageArray) -> Float32Array:
        """What :meth:`prepare` gives in uint8, (..., 3, H, W), as what it gives in float32."""
        factors, shifts, _ = self._normalisation
        scale, shift = (np.array(n, np.float32).reshape(3, 1, 1) for n in (factors, shifts))
        return pixels * scale + shift

    def pixels(self, tensor: Float32Array) -> ImageArray:
        """The inverse of :meth:`normalised`: the nearest pixels."""
        scale, shift = (np.array(n, np.float32).reshape(3, 1, 1) for n in (self.std, self.mean))
        return np.asarray(np.rint(tensor * scale + shift).clip(0, 255), np.uint8)


class _Fit(NamedTuple):
    """What a placement depends on of a spec: quicker to look up than all of it."""

    resize: ResizeMode
    rounding: Rounding
    width: int
    height: int
    short_side: int | None


@lru_cache(maxsize=256)
def _place(fit: _Fit, width: int, height: int) -> Placement:
    """See :meth:`ImageSpec.place`; most applications see few sizes, over and over."""
    if fit.resize is ResizeMode.STRETCH:
        return Placement(width, height, fit.width, fit.height)
    if fit.resize is ResizeMode.CENTER_CROP:
        return _crop(fit, width, height)
    scale = min(fit.height / height, fit.width / width)
    new_width = min(fit.width, fit.rounding(width * scale))
    new_height = min(fit.height, fit.rounding(height * scale))
    if fit.resize is ResizeMode.PAD_BOTTOM_RIGHT:
        return Placement(width, height, new_width, new_height)
    left, top = (fit.width - new_width) // 2, (fit.height - new_height) // 2
    return Placement(width, height, new_width, new_height, left, top)


class _Window(NamedTuple):
    """Where a picture's pixels go in a tensor (3, H, W).

    It is resized to ``resized`` (width, height), and what ``cut`` leaves of its planes (None for
    all) goes ``inside`` the tensor, between the bounds left, top, right, bottom.
    """

    resized: tuple[int, int]
    bounds: tuple[int, int, int, int]
    inside: tuple[slice, slice, slice]
    cut: tuple[slice, slice, slice] | None


@lru_cache(maxsize=256)
def _window(fit: _Fit, width: int, height: int) -> _Window:
    """Of a picture of ``width`` x ``height`` pixels."""
    place = _place(fit, width, height)
    resized = place.resized_width, place.resized_height
    left, top = max(0, place.left), max(0, place.top)
    right = min(fit.width, place.left + resized[0])
    bottom = min(fit.height, place.top + resized[1])
    inside = slice(None), slice(top, bottom), slice(left, right)
    cut = None
    if (right - left, bottom - top) != resized:
        rows = slice(top - place.top, bottom - place.top)
        cut = slice(None), rows, slice(left - place.left, right - place.left)
    return _Window(resized, (left, top, right, bottom), inside, cut)


def _crop(fit: _Fit, width: int, height: int) -> Placement:
    short = fit.short_side or min(fit.height, fit.width)
    scale = short / min(width, height)
    new_width = short if width <= height else fit.rounding(width * scale)
    new_height = short if height <= width else fit.rounding(height * scale)
    if max(new_width, new_height) > 4 * MAX_SIDE:
        raise InputError(
            f"a picture of {height}x{width} pixels (HxW) is too narrow to be cropped to "
            f"{fit.height}x{fit.width}; cut it first"
        )
    left, top = -round((new_width - fit.width) / 2), -round((new_height - fit.height) / 2)
    return Placement(width, height, new_width, new_height, left, top)
