from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import dyninfer
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.exporters.cascade.conventions import UNIT_STD
from dyninfer.exporters.cascade.export import export_cascade
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import Decode, DetectorSource, Layout
from dyninfer.exporters.cascade.plan import plan_detector
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


@pytest.mark.slow
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


def test_a_normalisation_under_which_nothing_is_found_is_given_up(
    bundle: Path, tmp_path: Path
) -> None:
    """Channels last are usually from 0 to 255."""
    model = onnx.load(str(bundle / "onnx" / "first.onnx"))
    (image,) = model.graph.input
    image.CopyFrom(helper.make_tensor_value_info("last", 1, ["batch", 224, 224, 3]))
    first = helper.make_node("Transpose", ["last"], ["images"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, first)
    path = tmp_path / "last.onnx"
    path.write_bytes(model.SerializeToString())
    found = plan_detector("", DetectorSource(path), read_onnx(path))
    assert (found.plan.decode, found.plan.layout) == (Decode.BOXES_SCORES, Layout.NHWC)
    assert found.plan.image.std == UNIT_STD
    assert "std 255" in str(found.guesses)
    assert found.doubt is None
    bright = plan_detector("", DetectorSource(path, std=(1.0,) * 3), read_onnx(path))
    assert bright.plan.image.std == (1, 1, 1)
    assert "finds neither person, cat nor cup" in str(bright.doubt)
    assert "--normalise" in str(bright.doubt)


@pytest.mark.parametrize("first", [0, 1])
def test_the_count_of_classes_is_told_by_what_photos_show(
    bundle: Path, tmp_path: Path, first: int
) -> None:
    """No class above 79 and none below 1 is found, so that numbers alone leave both open."""
    model = onnx.load(str(bundle / "onnx" / "first.onnx"))
    nodes = [
        helper.make_node("ReduceMax", ["class_scores"], ["confidence"], axes=[2]),
        helper.make_node("ArgMax", ["class_scores"], ["best"], axis=2),
        helper.make_node("Add", ["best", "first"], ["number"]),
        helper.make_node("Cast", ["number"], ["label"], to=1),
        helper.make_node("Concat", ["boxes_xyxy", "confidence", "label"], ["rows"], axis=2),
        helper.make_node("TopK", ["confidence", "some"], ["_", "places"], axis=1),
        helper.make_node("GatherND", ["rows", "places"], ["out"], batch_dims=1),
    ]
    model.graph.node.extend(nodes)
    for name, number in (("first", np.array([first])), ("some", np.array([50]))):
        model.graph.initializer.append(numpy_helper.from_array(number, name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", 1, ["batch", 50, 6]))
    path = tmp_path / "rows.onnx"
    path.write_bytes(model.SerializeToString())
    found = plan_detector("", DetectorSource(path), read_onnx(path))
    assert found.plan.decode is Decode.DETECTIONS
    assert found.plan.class_numbers == tuple(range(first, 80 + first))
    assert found.doubt is None
