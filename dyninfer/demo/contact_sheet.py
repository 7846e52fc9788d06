"""Pages of pictures: titled columns of equally large tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dyninfer.errors import InputError
from dyninfer.images.spec import ImageSpec, Placement
from dyninfer.types import ImageArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)
_MARGIN = 16  # pixels, as everything below
_GAP = 8
_LINE = 24


@dataclass(frozen=True)
class Column:
    """A titled column of a page; ``colour`` is a BGR bar under the title."""

    title: str
    tiles: Sequence[ImageArray]
    colour: tuple[int, int, int] = (160, 160, 160)


def contact_sheet(title: str, columns: Sequence[Column], tile: int) -> ImageArray:
    """A white page (h, w, 3) uint8 BGR with the columns side by side.

    Pictures are of any size; each is fitted into a square of ``tile`` pixels.
    """
    rows = max(len(column.tiles) for column in columns)
    top = _MARGIN + 2 * _LINE + _GAP
    height = top + rows * (tile + _GAP) - _GAP + _MARGIN
    width = 2 * _MARGIN + len(columns) * (tile + _GAP) - _GAP
    page = np.full((height, width, 3), 255, np.uint8)
    _text(page, title, (_MARGIN, _MARGIN + 14), 0.62, width - 2 * _MARGIN)
    for number, column in enumerate(columns):
        left = _MARGIN + number * (tile + _GAP)
        _text(page, column.title, (left, _MARGIN + _LINE + 14), 0.48, tile)
        page[top - _GAP // 2 - 3 : top - _GAP // 2, left : left + tile] = column.colour
        for row, picture in enumerate(column.tiles):
            y = top + row * (tile + _GAP)
            page[y : y + tile, left : left + tile] = _on_grey(picture, tile)
    return page


def fit_square(picture: ImageArray, side: int) -> tuple[ImageArray, Placement]:
    """The picture, resized so that its longer side has ``side`` pixels, and its place there."""
    place = ImageSpec(height=side, width=side).place(picture.shape[1], picture.shape[0])
    size = (place.resized_width, place.resized_height)
    method = cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=method).astype(np.uint8, copy=False), place


def _on_grey(picture: ImageArray, tile: int) -> ImageArray:
    """The picture on a grey square, never cropped."""
    square: ImageArray = np.full((tile, tile, 3), 235, np.uint8)
    resized, place = fit_square(picture, tile)
    height, width = resized.shape[:2]
    square[place.top : place.top + height, place.left : place.left + width] = resized
    return square


def write_picture(path: Path, picture: ImageArray) -> None:
    """Write a picture in the format that its name ends in, or say why not."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, picture, quality)
    if not done:
        raise InputError(f"{path} cannot be encoded as {path.suffix[1:].upper()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def _text(page: ImageArray, text: str, origin: tuple[int, int], scale: float, width: int) -> None:
    """One line of text, made smaller where it would not fit into ``width`` pixels."""
    (needed, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    scale *= min(1.0, width / max(1, needed))
    cv2.putText(page, text, origin, _FONT, scale, _INK, 1, cv2.LINE_AA)
