"""``dyninfer demo``: export, verify and run the embedded model, and draw what it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dyninfer.annotate import EASY_BGR, HARD_BGR, annotate
from dyninfer.benchmarks.contact_sheet import Column, contact_sheet
from dyninfer.benchmarks.scenes import CLASS_NAMES, Scene
from dyninfer.benchmarks.speed_curve import CurvePoint
from dyninfer.bundle import write_atomically
from dyninfer.detector import Detector
from dyninfer.errors import InputError
from dyninfer.images import find_images, read_image
from dyninfer.imagespec import ImageSpec
from dyninfer.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.types import Detections, Float32Array, ImageArray

ASSETS = Path(__file__).parent.parent / "assets"
TILES_PER_COLUMN = 4
TILE = 320  # pixels; scenes are small, and labels must be legible on them


@dataclass(frozen=True)
class DemoPaths:
    """Where the demo writes."""

    folder: Path

    @property
    def bundle(self) -> Path:
        """The exported embedded model."""
        return self.folder / "dy-digits.dyn"

    @property
    def sheet(self) -> Path:
        """Easy and hard scenes side by side."""
        return self.folder / "easy-and-hard.jpg"

    @property
    def photos(self) -> Path:
        """Real photographs at several thresholds."""
        return self.folder / "photographs.jpg"

    @property
    def summary(self) -> Path:
        """The table as JSON."""
        return self.folder / "summary.json"

    @property
    def scenes(self) -> Path:
        """Every scene, annotated."""
        return self.folder / "scenes"


def embedded_checkpoint() -> Path:
    """The checkpoint that ships with the package."""
    return ASSETS / "dy-digits.pt"


def write_class_names(folder: Path) -> Path:
    """The digits' names as a file for the exporter."""
    path = folder / "class-names.txt"
    write_atomically(path, "\n".join(CLASS_NAMES) + "\n")
    return path


def draw(image: ImageArray, detections: Detections, side: int = TILE) -> ImageArray:
    """The picture, resized so that its longer side has ``side`` pixels, with what was found.

    It is resized first, so that lines and letters stay fine.
    """
    place = ImageSpec(height=side, width=side).place(image.shape[1], image.shape[0])
    shrinks = place.resized_width < image.shape[1]
    resized = cv2.resize(
        image,
        (place.resized_width, place.resized_height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
    )
    scale = np.array([place.scale_x, place.scale_y] * 2, np.float32)
    moved = replace(detections, boxes_xyxy=detections.boxes_xyxy * scale)
    return annotate(resized.astype(np.uint8, copy=False), moved)


def draw_easy_and_hard(
    detector: Detector, scenes: Sequence[Scene], easiness: Float32Array
) -> ImageArray:
    """A page: the easiest scenes at the first exit, the hardest at the first and the second."""
    order = np.argsort(easiness, kind="stable")
    # every second one, so that neighbours in the order do not all look alike
    hardest = [scenes[i] for i in order[: 2 * TILES_PER_COLUMN : 2]]
    easiest = [scenes[i] for i in order[::-1][: 2 * TILES_PER_COLUMN : 2]]
    columns: list[tuple[str, list[Scene], Policy, tuple[int, int, int]]] = [
        ("easy: exit 0 is enough", easiest, AlwaysEasy(), EASY_BGR),
        ("hard: what exit 0 would say", hardest, AlwaysEasy(), (150, 150, 150)),
        ("hard: what exit 1 says", hardest, AlwaysHard(), HARD_BGR),
    ]
    return contact_sheet(
        "Scenes the router calls easiest and hardest",
        [
            Column(title, _draw_all(detector, chosen, policy), colour)
            for title, chosen, policy, colour in columns
        ],
        TILE,
    )


def _draw_all(detector: Detector, scenes: Sequence[Scene], policy: Policy) -> list[ImageArray]:
    detector.policy = policy
    found = detector([scene.image for scene in scenes])
    return [draw(scene.image, result) for scene, result in zip(scenes, found, strict=True)]


def draw_photographs(detector: Detector, policies: Sequence[Policy]) -> ImageArray:
    """A page: each built-in photograph, untouched, at every policy."""
    pictures = [read_image(path) for path in find_images(ASSETS / "photos")]
    columns = []
    for policy in policies:
        detector.policy = policy
        tiles = [
            draw(picture, found)
            for picture, found in zip(pictures, detector(pictures), strict=True)
        ]
        columns.append(Column(str(policy), tiles))
    return contact_sheet("Photographs without digits, at several thresholds", columns, TILE)


def write_picture(path: Path, picture: ImageArray) -> None:
    """Write a JPEG, or say why not."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise InputError(f"{path} cannot be encoded as JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def write_scenes(
    folder: Path,
    scenes: Sequence[Scene],
    point: CurvePoint,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Annotate every scene with the results of one policy."""
    for number, (scene, result) in enumerate(zip(scenes, point.results, strict=True)):
        write_picture(folder / f"{number:04d}.jpg", draw(scene.image, result))
        progress()


def summarise(points: Sequence[CurvePoint], scenes: int) -> dict[str, Any]:
    """The curve as plain values, for ``summary.json``."""
    return {
        "scenes": scenes,
        "points": [
            {
                "policy": str(point.policy),
                "hard_share": point.hard_share,
                "ap": point.ap,
                "ap50": point.ap50,
                "mean_ms": point.mean_ms,
            }
            for point in points
        ],
    }


def write_summary(path: Path, points: Sequence[CurvePoint], scenes: int) -> None:
    """Write the curve as JSON."""
    write_atomically(path, json.dumps(summarise(points, scenes), indent=2) + "\n")
