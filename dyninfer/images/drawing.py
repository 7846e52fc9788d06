"""Drawing detections on pictures."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from dyninfer.results.detections import Detections
from dyninfer.types import ImageArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618034
EASY_BGR = (96, 160, 32)
HARD_BGR = (40, 80, 220)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A BGR colour for a class; neighbouring ids are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def annotate(image: ImageArray, detections: Detections, *, badge: bool = True) -> ImageArray:
    """A copy of the picture (h, w, 3) with boxes, labels, and a badge that tells the exit.

    Line widths and letters follow the picture's size.
    """
    canvas: ImageArray = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 900)
    width = max(1, round(2 * scale))
    for box, confidence, class_id, name in reversed(
        list(
            zip(
                detections.boxes_xyxy,
                detections.confidences,
                detections.class_ids,
                detections.class_names,
                strict=True,
            )
        )
    ):
        colour = class_colour(int(class_id))
        left, top, right, bottom = (round(float(value)) for value in box)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, width)
        _label(canvas, f"{name} {confidence:.2f}", (left, top), colour, scale)
    if badge:
        _badge(canvas, detections, scale)
    return canvas


def _label(
    canvas: ImageArray,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float,
) -> None:
    """Text on a filled bar above ``corner``, or below it at the picture's upper edge."""
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(1, round(3 * scale))
    bar = height + baseline + 2 * pad
    left = max(0, min(corner[0], canvas.shape[1] - width - 2 * pad))
    top = corner[1] - bar if corner[1] >= bar else corner[1]
    cv2.rectangle(canvas, (left, top), (left + width + 2 * pad, top + bar), colour, cv2.FILLED)
    dark = np.dot(colour, (0.114, 0.587, 0.299)) < 128
    ink = (255, 255, 255) if dark else (0, 0, 0)
    origin = (left + pad, top + pad + height)
    cv2.putText(canvas, text, origin, _FONT, scale, ink, 1, cv2.LINE_AA)


def _badge(canvas: ImageArray, detections: Detections, scale: float) -> None:
    easiness = "" if detections.easiness is None else f", easiness {detections.easiness:.2f}"
    colour = EASY_BGR if detections.exit_index == 0 else HARD_BGR
    text = f"exit {detections.exit_index}{easiness}"
    _label(canvas, text, (0, canvas.shape[0]), colour, scale)
