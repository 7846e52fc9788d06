from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.exporters.cascade.export import export_cascade
from dyninfer.exporters.cascade.options import Decode, DetectorSource, Layout
from tests import support

NANODET, CENTERNET = "nanodet_dyn.onnx", "centernet.onnx"
COCO_OPTIONS = dyninfer.Postprocess(confidence=0.01, iou=0.5, several_labels=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = support.shared_folder() / "models"
    if not all((folder / name).exists() for name in (NANODET, CENTERNET)):
        pytest.skip(f"no detectors in {folder}; set DYNINFER_SHARED to the folder that holds them")
    path = tmp_path_factory.mktemp("real") / "nano-center.dyn"
    sources = [
        DetectorSource(folder / NANODET, size=(224, 224)),
        DetectorSource(folder / CENTERNET),
    ]
    export_cascade(sources, path)
    return path


@pytest.fixture(scope="module")
def photos() -> tuple[list[Path], list[Truth]]:
    folder = support.shared_folder() / "data" / "photos50"
    if not (folder / "annotations.json").exists():
        pytest.skip(f"no photos in {folder}; set DYNINFER_SHARED to the folder that holds them")
    document = json.loads((folder / "annotations.json").read_text())
    numbers = {category["id"]: n for n, category in enumerate(document["categories"])}
    paths, truths = [], []
    for image in document["images"]:
        own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        class_ids = np.array([numbers[a["category_id"]] for a in own], int)
        truths.append(Truth(boxes, class_ids, np.array([a["iscrowd"] for a in own], bool)))
        paths.append(folder / "images" / Path(image["file_name"]).name)
    return paths, truths


def test_everything_but_one_size_is_told_from_the_files(bundle: Path) -> None:
    from dyninfer.exporters.cascade.stage import read_plan

    first, second = (read_plan(bundle / "onnx" / f"{name}.onnx") for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert (first.decode, first.strides, first.bins) == (Decode.NANODET, (8, 16, 32), 11)
    assert (second.decode, second.layout) == (Decode.DETECTIONS, Layout.NHWC)


def test_the_second_of_two_real_detectors_is_the_better_one(bundle: Path, photos) -> None:
    paths, truths = photos
    found = {}
    with dyninfer.load(bundle) as detector:
        for policy in (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()):
            detector.policy = policy
            results = detector(paths, options=COCO_OPTIONS)
            found[type(policy)] = average_precision(truths, results, 80).ap50
    assert found[dyninfer.AlwaysEasy] > 0.5
    assert found[dyninfer.AlwaysHard] > found[dyninfer.AlwaysEasy]
