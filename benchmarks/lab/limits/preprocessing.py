"""Preparing a picture, against OpenCV's usual way with a letterbox and ``blobFromImage``."""

from __future__ import annotations

import cv2
import numpy as np

from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import keep_freed_memory, repeated, warm_rounds
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare
from dyninfer.images.prepare import Scratch
from dyninfer.images.spec import ImageSpec
from dyninfer.types import Float32Array, ImageArray

LIMIT = 0.7
HEIGHT, WIDTH, SIZE = 720, 1280, 640
_GREY = 114
_REPEATS = 5
_TOLERANCE = 1e-6

NOTE = (
    "Both give the same tensor. Ours writes to one buffer, as the runtime does, and finds the "
    "padding of the call before in it. Handing ONNX Runtime the pixels as uint8, with conversion "
    "and scaling in its graph, was tried on a busy machine of two cores and took 1.1 times as long "
    "where OpenCV splits the channels, and over 5 times as long where the graph does: not pursued."
)


def measure(rounds: int) -> list[LimitResult]:
    """Time both on one picture of 1280 x 720 for a tensor of 640 x 640.

    Raises:
        InputError: the two do not give the same tensor, or there are too few rounds.
    """
    keep_freed_memory()
    image, spec, scratch = noise_picture(), ImageSpec(SIZE, SIZE), Scratch()
    tensor = np.empty((1, 3, SIZE, SIZE), np.float32)
    difference = float(np.abs(letterbox_blob(image) - spec.prepare(image)[None]).max())
    if not difference <= _TOLERANCE:
        raise InputError(f"the tensors differ by {difference:g}, expected at most {_TOLERANCE:g}")
    runs = {
        "dyninfer": repeated(lambda: spec.prepare(image, tensor[0], scratch), _REPEATS),
        "blobFromImage": repeated(lambda: letterbox_blob(image), _REPEATS),
    }
    times = warm_rounds(runs, rounds)
    return [
        LimitResult(
            key="preprocessing",
            what=f"{WIDTH}x{HEIGHT} to {SIZE}x{SIZE}, against letterbox and blobFromImage",
            limit=LIMIT,
            measured=compare(times["dyninfer"], times["blobFromImage"]),
            times_ms=times,
            note=NOTE,
        )
    ]


def noise_picture(seed: int = 0) -> ImageArray:
    """Blurred noise, (720, 1280, 3) uint8: no time here depends on what a picture shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 2).astype(np.uint8, copy=False)


def letterbox_blob(image: ImageArray) -> Float32Array:
    """The usual letterbox: resized by one factor, padded with grey; then OpenCV's blob.

    Returns:
        (1, 3, 640, 640) float32, RGB from 0 to 1.
    """
    height, width = image.shape[:2]
    scale = min(SIZE / height, SIZE / width)
    new_width, new_height = round(width * scale), round(height * scale)
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    left, top = (SIZE - new_width) // 2, (SIZE - new_height) // 2
    right, bottom = SIZE - new_width - left, SIZE - new_height - top
    padded = cv2.copyMakeBorder(
        resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(_GREY,) * 3
    )
    return np.asarray(cv2.dnn.blobFromImage(padded, scalefactor=1 / 255, swapRB=True), np.float32)
