"""Every exporter's way of writing gives the boxes and scores that the one detector has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import DetectorSource
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.class_names import COCO
from dyninfer.exporters.graphs import open_model
from tests.exporters.cascade.formats import (
    FORMATS,
    HEIGHT,
    LEVELS,
    NAMES,
    SURE,
    WIDTH,
    Core,
    Format,
)


def planned(form: Format, folder: Path, **more) -> PlannedDetector:
    path = form.save(folder / "tiny.onnx")
    if form.classes != 80 and "metadata" not in form.saved:
        more["class_names"] = folder / "names.txt"
        more["class_names"].write_text("\n".join(NAMES[: form.classes]))
    source = DetectorSource(path, **{**form.more, **more})
    found = plan_detector("first-", source, read_onnx(path))
    own = tuple(range(len(found.class_names)))
    return replace(found, plan=replace(found.plan, bundle_classes=own))


def truth(form: Format, images: np.ndarray, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and scores of the one detector, for each image (3, H, W)."""
    core = Core(form.classes, form.levels)
    core.out(core.boxes, "true_boxes")
    core.out(core.scores, "true_scores")
    session = open_model(onnx.load(str(core.save(folder / "core.onnx", size=(HEIGHT, WIDTH)))))
    name = session.get_inputs()[0].name
    return [
        tuple(value[0] for value in session.run(["true_boxes", "true_scores"], {name: image[None]}))
        for image in images
    ]


def only_best(scores: np.ndarray) -> np.ndarray:
    return np.where(scores == scores.max(1, keepdims=True), scores, 0)


def only_peaks(scores: np.ndarray) -> np.ndarray:
    """The finest level, where no neighbour has a higher score of the class."""
    height, width, _ = LEVELS[0]
    heat = scores[: height * width].reshape(height, width, -1)
    kept = np.zeros_like(heat)
    for y in range(height):
        for x in range(width):
            around = heat[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max((0, 1))
            kept[y, x] = np.where(heat[y, x] >= around, heat[y, x], 0)
    return kept.reshape(height * width, -1)


def surest(boxes: np.ndarray, scores: np.ndarray, above: float) -> tuple[np.ndarray, np.ndarray]:
    best = scores.max(1)
    order = [n for n in np.argsort(-best, kind="stable") if best[n] > above]
    return boxes[order], scores[order]


def expected(name: str, form: Format, boxes: np.ndarray, scores: np.ndarray):
    """What a format keeps of the truth, the surest first, and from which confidence on."""
    if name.startswith("center"):
        return surest(boxes, only_peaks(scores), 1e-6)
    if name == "detr":
        return surest(boxes, scores / form.classes, 0)
    if name == "efficient nms":
        return surest(boxes[:50], only_best(scores[:50]), 0)
    if form.lists:
        return surest(boxes, only_best(scores), SURE)
    return surest(boxes, scores, 0)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_boxes_and_classes_of_the_detector(
    tmp_path: Path, name: str
) -> None:
    form = FORMATS[name]
    found = planned(form, tmp_path)
    plan = found.plan
    assert plan.decode is form.decode
    assert found.class_names == (COCO if form.classes == 80 else NAMES[: form.classes])
    entry, _ = write_stage("first", found, "images", tmp_path)
    session = open_model(onnx.load(str(tmp_path / entry.file)))
    images = np.random.default_rng(1).random((3, 3, HEIGHT, WIDTH), np.float32)
    if form.levels:
        images = np.round(images * 255)
    compared = 0
    for image, true in zip(images, truth(form, images, tmp_path), strict=True):
        wanted_boxes, wanted_scores = expected(name, form, *true)
        boxes, scores = session.run(["boxes_xyxy", "class_scores"], {"images": image[None]})
        least = SURE if form.lists and name != "efficient nms" else 1e-6 * name.startswith("center")
        got_boxes, got_scores = surest(boxes[0], scores[0], least)
        assert len(got_boxes) == len(wanted_boxes)
        np.testing.assert_allclose(got_boxes, wanted_boxes, atol=0.05)
        np.testing.assert_allclose(got_scores, wanted_scores, atol=1e-4)
        compared += len(got_boxes)
    assert compared > 20
