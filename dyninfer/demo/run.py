"""``dyninfer demo``: export, verify and run the embedded model, and draw what it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from dyninfer.bundle.folder import write_atomically
from dyninfer.demo.contact_sheet import Column, contact_sheet, fit_square
from dyninfer.demo.contact_sheet import write_picture as write_picture
from dyninfer.demo.curve_picture import Mark, write_curve_picture
from dyninfer.demo.scenes import CLASS_NAMES
from dyninfer.evaluation.routed_curve import CurveResult
from dyninfer.evaluation.runs import CurvePoint
from dyninfer.images.pictures import EASY_BGR, HARD_BGR, annotate, find_images, read_image
from dyninfer.results.answers import Answer, Detections
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray

ASSETS = Path(__file__).parent / "assets"
TILES_PER_COLUMN = 4
TILE = 320  # pixels; scenes are small, and labels must be legible on them


class DemoPaths:
    """Where in a folder the demo writes.

    Thresholds are taken from the scenes of ``calibration``; everything is measured on those of
    ``held_out``. ``scenes`` has these with what was found drawn into them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "dy-digits.dyn"
        self.sheet = folder / "easy-and-hard.jpg"
        self.photos = folder / "photographs.jpg"
        self.curve = folder / "curve.png"
        self.calibration = folder / "calibration"
        self.held_out = folder / "held-out"
        self.summary = folder / "summary.json"
        self.scenes = folder / "scenes"


def embedded_checkpoint() -> Path:
    """The checkpoint that ships with the package."""
    return ASSETS / "dy-digits.pt"


def write_class_names(folder: Path) -> Path:
    """The digits' names as a file for the exporter."""
    path = folder / "class-names.txt"
    write_atomically(path, "\n".join(CLASS_NAMES) + "\n")
    return path


def draw(image: ImageArray, detections: Answer, side: int = TILE) -> ImageArray:
    """The picture, resized so that its longer side has ``side`` pixels, with what was found.

    It is resized first, so that lines and letters stay fine.
    """
    resized, place = fit_square(image, side)
    scale = np.array([place.scale_x, place.scale_y] * 2, np.float32)
    assert isinstance(detections, Detections)  # the embedded model detects
    return annotate(resized, replace(detections, boxes_xyxy=detections.boxes_xyxy * scale))


def draw_easy_and_hard(
    detector: Detector, pictures: Sequence[ImageArray], easiness: Float64Array
) -> ImageArray:
    """A page: the easiest scenes at the first exit, the hardest at the first and the second."""
    order = np.argsort(easiness, kind="stable")
    # every second one, so that neighbours in the order do not all look alike
    hardest = [pictures[i] for i in order[: 2 * TILES_PER_COLUMN : 2]]
    easiest = [pictures[i] for i in order[::-1][: 2 * TILES_PER_COLUMN : 2]]
    easy, hard = AlwaysEasy(), AlwaysHard()
    early = _draw_all(detector, hardest, easy)
    columns = [
        Column("easy: exit 0 is enough", _draw_all(detector, easiest, easy), EASY_BGR),
        Column("hard: what exit 0 would say", early, (150, 150, 150)),
        Column("hard: what exit 1 says", _draw_all(detector, hardest, hard), HARD_BGR),
    ]
    return contact_sheet("Scenes the router calls easiest and hardest", columns, TILE)


def _draw_all(
    detector: Detector, pictures: Sequence[ImageArray], policy: Policy | Goal
) -> list[ImageArray]:
    found = detector(pictures, policy=policy)
    return [draw(picture, result) for picture, result in zip(pictures, found, strict=True)]


def draw_photographs(detector: Detector, policies: Sequence[Policy | Goal]) -> ImageArray:
    """A page: each built-in photograph, untouched, at every policy."""
    pictures = [read_image(path) for path in find_images(ASSETS / "photos")]
    columns = [Column(str(p), _draw_all(detector, pictures, p)) for p in policies]
    return contact_sheet("Photographs without digits, at several thresholds", columns, TILE)


def write_scenes(
    folder: Path,
    pictures: Sequence[ImageArray],
    point: CurvePoint,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Annotate every scene with the results of one policy."""
    for number, (picture, result) in enumerate(zip(pictures, point.timed.answers, strict=True)):
        write_picture(folder / f"{number:04d}.jpg", draw(picture, result))
        progress()


def write_summary(path: Path, points: Sequence[CurvePoint], curve: CurveResult) -> None:
    """Write the settings that were run, and what the routing is worth, as JSON."""
    document = {
        "scenes": len(curve.samples.items),
        "points": [
            {
                "policy": str(point.policy),
                "hard_share": point.hard_share,
                "ap": point.scores.primary,
                "ap50": point.scores.secondary,
                "mean_ms": point.mean_ms,
            }
            for point in points
        ],
        "routing": asdict(curve.quality),
    }
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def write_curve(path: Path, points: Sequence[CurvePoint], curve: CurveResult, machine: str) -> None:
    """Draw accuracy against time, with the settings that were run as points."""
    ends = {0: "exit 0 only", len(points) - 1: "exit 1 always"}
    marks = [
        Mark(
            ends.get(number, f"{point.hard_share:.0%} hard"),
            point.mean_ms,
            point.scores.primary or 0.0,
        )
        for number, point in enumerate(points)
    ]
    title = f"{len(curve.samples.items)} held-out scenes, one set of engines"
    write_curve_picture(path, curve.rows, marks, title, machine)
