"""What was found, drawn on a copy of the picture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from dyninfer.results.answers import Answer, Detections
from dyninfer.types import ImageArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618034
EASY_BGR = (96, 160, 32)
HARD_BGR = (40, 80, 220)
PREDICTED_BGR = (110, 110, 110)
MAX_CLASSES = 5


class _Bar(NamedTuple):
    """Where a label stands, in pixels; ``base`` is from its top down to the letters' feet."""

    left: int
    top: int
    width: int
    height: int
    base: int


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A BGR colour for a class; neighbouring ids are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def annotate(
    image: ImageArray, answer: Answer, way_name: str | None = None, *, badge: bool = True
) -> ImageArray:
    """A copy of the picture (h, w, 3) with what was found, and a badge that tells the way.

    Detections are boxes with labels, in colours of their classes or, where they are tracked, of
    their ids; of other answers the best classes stand in the upper left corner. Labels make room
    for those of surer detections. Line widths and letters follow the picture's size. Where no
    engine ran, the badge says so.
    """
    canvas: ImageArray = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 900)
    if isinstance(answer, Detections):
        _draw_boxes(canvas, answer, scale)
    else:
        _draw_classes(canvas, answer, scale)
    if badge:
        _badge(canvas, answer, way_name or f"exit {answer.exit_index}", scale)
    return canvas


def _draw_classes(canvas: ImageArray, answer: Answer, scale: float) -> None:
    rows = list(zip(answer.confidences, answer.class_ids, answer.class_names, strict=True))
    bar = 0
    for place, (confidence, class_id, name) in enumerate(rows[:MAX_CLASSES]):
        colour = class_colour(int(class_id))
        corner = (0, (place + 1) * bar)
        bar = _label(canvas, f"{name} {confidence:.2f}", corner, colour, scale)


def _draw_boxes(canvas: ImageArray, detections: Detections, scale: float) -> None:
    width = max(1, round(2 * scale))
    ids = [-1] * len(detections) if detections.track_ids is None else detections.track_ids.tolist()
    labels, taken = [], list[_Bar]()
    for track, (box, confidence, class_id, name) in zip(ids, detections.rows(), strict=True):
        colour = class_colour(int(class_id) if track < 0 else track)
        name = name if track < 0 else f"{name} #{track}"
        left, top, right, bottom = (round(float(value)) for value in box)
        text = f"{name} {confidence:.2f}"
        bar = _free(_bar(canvas, text, (left, top), scale), taken, canvas.shape[0])
        taken.append(bar)
        labels.append((text, bar, colour, ((left, top), (right, bottom))))
    for _, _, colour, corners in reversed(labels):
        cv2.rectangle(canvas, *corners, colour, width)
    for text, bar, colour, _ in reversed(labels):
        _write(canvas, text, bar, colour, scale)


def _free(bar: _Bar, taken: Sequence[_Bar], height: int) -> _Bar:
    """``bar``, or the nearest place below it that covers none of those; itself if there is none."""
    free = bar
    while hit := next((other for other in taken if _overlap(free, other)), None):
        free = free._replace(top=hit.top + hit.height)
        if free.top + free.height > height:
            return bar
    return free


def _overlap(one: _Bar, other: _Bar) -> bool:
    return (
        one.left < other.left + other.width
        and other.left < one.left + one.width
        and one.top < other.top + other.height
        and other.top < one.top + one.height
    )


def _label(
    canvas: ImageArray,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float,
) -> int:
    """Text on a filled bar above ``corner``, or below it at the upper edge; the bar's height."""
    bar = _bar(canvas, text, corner, scale)
    _write(canvas, text, bar, colour, scale)
    return bar.height


def _bar(canvas: ImageArray, text: str, corner: tuple[int, int], scale: float) -> _Bar:
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
    pad = _pad(scale)
    tall = height + baseline + 2 * pad
    left = max(0, min(corner[0], canvas.shape[1] - width - 2 * pad))
    top = corner[1] - tall if corner[1] >= tall else corner[1]
    return _Bar(left, top, width + 2 * pad, tall, pad + height)


def _write(
    canvas: ImageArray, text: str, bar: _Bar, colour: tuple[int, int, int], scale: float
) -> None:
    corner = bar.left + bar.width, bar.top + bar.height
    cv2.rectangle(canvas, (bar.left, bar.top), corner, colour, cv2.FILLED)
    dark = np.dot(colour, (0.114, 0.587, 0.299)) < 128
    ink = (255, 255, 255) if dark else (0, 0, 0)
    origin = (bar.left + _pad(scale), bar.top + bar.base)
    cv2.putText(canvas, text, origin, _FONT, scale, ink, 1, cv2.LINE_AA)


def _pad(scale: float) -> int:
    return max(1, round(3 * scale))


def _badge(canvas: ImageArray, answer: Answer, way_name: str, scale: float) -> None:
    if isinstance(answer, Detections) and answer.predicted:
        _label(canvas, "in between", (0, canvas.shape[0]), PREDICTED_BGR, scale)
        return
    easiness = "" if answer.easiness is None else f", easiness {answer.easiness:.2f}"
    colour = EASY_BGR if answer.exit_index == 0 else HARD_BGR
    _label(canvas, f"{way_name}{easiness}", (0, canvas.shape[0]), colour, scale)
