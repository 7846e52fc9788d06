"""The pictures of the demo: pages of titled columns, annotated scenes, and the curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dyninfer.bundle.unfinished import write_atomically
from dyninfer.demo import ASSETS
from dyninfer.errors import InputError, MissingExtra
from dyninfer.evaluation.routed_curve import CurveResult, CurveRow
from dyninfer.evaluation.runs import CurvePoint
from dyninfer.images.drawing import EASY_BGR, HARD_BGR, annotate
from dyninfer.images.folders import find_images
from dyninfer.images.pictures import read_image
from dyninfer.images.spec import ImageSpec, Placement
from dyninfer.installing import pip_install
from dyninfer.results.answers import Answer, Detections
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILES_PER_COLUMN = 4
TILE = 320  # pixels; scenes are small, and labels must be legible on them
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (40, 40, 40)
_MARGIN = 16  # pixels, as everything below
_GAP = 8
_LINE = 24
# Okabe and Ito's colours, which the colour-blind tell apart; lines differ in their dashes too
_ROUTER, _RANDOM, _ORACLE = "#0072B2", "#7A7A7A", "#D55E00"
_LABEL = 0.13  # room for the last setting's label, of the range of the axis


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
    """The picture, resized so that its longer side has :data:`TILE` pixels, and its place there."""
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


def draw(image: ImageArray, detections: Answer) -> ImageArray:
    """The picture, resized so that its longer side has :data:`TILE` pixels, with what was found.

    It is resized first, so that lines and letters stay fine.
    """
    resized, place = fit_square(image, TILE)
    scale = np.array([place.scale_x, place.scale_y] * 2, np.float32)
    assert isinstance(detections, Detections)  # the embedded model detects
    boxes_xyxy = detections.boxes_xyxy * scale
    return annotate(resized, Detections(**{**vars(detections), "boxes_xyxy": boxes_xyxy}))


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


def draw_everyday(detector: Detector, pictures: Sequence[ImageArray]) -> ImageArray:
    """A page: photographs at both exits of a cascade, and at the one that its router takes."""
    chosen = detector(pictures)
    policies: tuple[Policy, Policy] = (AlwaysEasy(), AlwaysHard())
    specs = detector.manifest.image_inputs.values()
    columns = [
        Column(f"exit {index}: {spec.width} pixels", _draw_all(detector, pictures, policy))
        for index, (spec, policy) in enumerate(zip(specs, policies, strict=True))
    ]
    tiles = [draw(picture, found) for picture, found in zip(pictures, chosen, strict=True)]
    exits = ", ".join(str(found.exit_index) for found in chosen)
    columns.append(Column(f"what the router takes: exits {exits}", tiles, EASY_BGR))
    return contact_sheet("Photographs and the model everyday", columns, TILE)


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


def draw_curve(
    path: Path, rows: Sequence[CurveRow], points: Sequence[CurvePoint], title: str, machine: str
) -> None:
    """Draw AP against milliseconds per image as PNG, beside chance and an oracle, off screen.

    Rows, and the settings that were run, go from all easy to all hard; ``machine`` is where the
    times were taken.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(f"drawing a curve needs matplotlib: {pip_install('demo')}") from error
    figure = Figure(figsize=(7.6, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_lines(axes, rows)
    _draw_points(axes, points)
    axes.set_xlabel(f"milliseconds per image, one at a time\n{machine}")
    axes.set_ylabel("COCO AP (%)")
    axes.set_title(title, fontsize=11)
    axes.margins(0.05)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + _LABEL * (right - left))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _draw_lines(axes: Axes, rows: Sequence[CurveRow]) -> None:
    ms = np.array([row.mean_ms for row in rows])
    mean = 100 * np.array([row.chance.mean for row in rows])
    std = 100 * np.array([row.chance.std for row in rows])
    axes.plot(ms, [100 * row.oracle for row in rows], "-.", color=_ORACLE, label="oracle")
    axes.plot(ms, [100 * row.score for row in rows], "-", color=_ROUTER, lw=2, label="router")
    axes.plot(ms, mean, "--", color=_RANDOM, label="random, ± one standard deviation")
    axes.fill_between(ms, mean - std, mean + std, color=_RANDOM, alpha=0.25, lw=0)


def _draw_points(axes: Axes, points: Sequence[CurvePoint]) -> None:
    ms = [point.mean_ms for point in points]
    ap = [100 * (point.scores.primary or 0.0) for point in points]
    axes.plot(ms, ap, "o", color=_ROUTER, label="settings that were run")
    ends = {0: "exit 0 only", len(points) - 1: "exit 1 always"}
    for number, point in enumerate(points):
        axes.annotate(
            ends.get(number, f"{point.hard_share:.0%} hard"),
            (ms[number], ap[number]),
            # beside the ends, below the others: clear of the router's line
            xytext=(9, -4) if number in ends else (9, -13),
            textcoords="offset points",
            fontsize=9,
        )
