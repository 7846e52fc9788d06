"""Every exporter's way of writing gives the boxes and scores that the one detector has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from dyninfer import CheckpointError, ConfigError
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Decode,
    DetectorSource,
    Part,
    Scores,
)
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import write_stage
from dyninfer.exporters.class_names import COCO
from dyninfer.exporters.graphs import open_model
from tests import support
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
    if name == "flat pair":
        return surest(boxes, scores, SURE)
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


OTHERWISE = {
    "boxes": ("unit", BoxUnit.PIXELS, BoxUnit.NORMALISED),
    "box_format": ("box_format", BoxFormat.XYWH, BoxFormat.YXYX),
    "scores": ("score_kind", Scores.LOGITS, Scores.PROBABILITIES),
}


@pytest.mark.parametrize(
    "name",
    ["yolov8", "yolov5", "yolov10", "ultralytics rt-detr", "yolov4", "rt-detr", "tensorflow, 4"],
)
def test_what_is_said_goes_before_names_and_values(tmp_path: Path, name: str) -> None:
    for place in (1, 2):
        asked = {option: values[place] for option, values in OTHERWISE.items()}
        if asked["scores"] is Scores.PROBABILITIES and name == "rt-detr":
            asked["scores"] = Scores.SOFTMAX
        found = planned(FORMATS[name], tmp_path, **asked)
        for option, (attribute, *_) in OTHERWISE.items():
            assert getattr(found.plan, attribute) is asked[option]
            assert f" {option.replace('_', '-')} " not in str(found.guesses)


@pytest.mark.parametrize(
    ("name", "option", "value", "reason"),
    [
        ("yolox, undecoded", "boxes", BoxUnit.NORMALISED, "yolox, which reads no plain boxes;"),
        ("yolox, undecoded", "box_format", BoxFormat.CXCYWH, "which reads no plain boxes;"),
        ("centernet", "box_format", BoxFormat.XYXY, "no plain boxes; it takes cxcywh or cycxhw;"),
        ("yolov8", "cell_offset", 0.5, "yolov8, which reads plain boxes;"),
        ("torchvision", "cell_offset", 0.0, "which reads plain boxes;"),
        ("torchvision", "scores", Scores.SOFTMAX, ""),
    ],
)
def test_an_option_without_use_is_refused(
    tmp_path: Path, name: str, option: str, value, reason: str
) -> None:
    with support.refuses(ConfigError, option.replace("_", "-"), reason):
        planned(FORMATS[name], tmp_path, **{option: value})


def test_where_cells_have_their_centres_is_obeyed(tmp_path: Path) -> None:
    for name, kind in (("yolox, undecoded", None), ("centerface", BoxFormat.CXCYWH)):
        usual = planned(FORMATS[name], tmp_path).plan
        found = planned(FORMATS[name], tmp_path, cell_offset=0.25, box_format=kind).plan
        assert usual.cell_offset != 0.25
        assert (found.cell_offset, found.box_format) == (0.25, BoxFormat.CXCYWH)


def test_a_photo_without_detections_is_read_by_the_usual_order(tmp_path: Path) -> None:
    """Nothing but zeros: a list that no picture fills says so little that it must not fail."""
    form = replace(FORMATS["yolov10"], write=nothing)
    found = planned(form, tmp_path)
    assert (found.plan.decode, found.plan.labels) == (
        Decode.DETECTIONS,
        Part(("rows",), "av", 5, 6),
    )
    assert "gave no classes" in str(found.doubt)


def nothing(core: Core) -> None:
    few = core.times(core.confidence, 0)
    (none,) = (
        core.add(
            "Compress",
            core.add("Squeeze", core.columns(*[few] * 6), core.constant(np.array([0]))),
            core.constant(np.zeros(1, bool)),
            axis=0,
        ),
    )
    core.out(none, "rows", rank=2)


def test_an_image_without_an_axis_for_more_is_taken_one_by_one(tmp_path: Path) -> None:
    form = FORMATS["torchvision"]
    path = form.save(tmp_path / "four.onnx")
    model = onnx.load(str(path))
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    for node in model.graph.node:
        node.input[:] = ["one" if name == "pictures" else name for name in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    model.graph.node.insert(0, onnx.helper.make_node("Unsqueeze", ["pictures", "first"], ["one"]))
    path.write_bytes(model.SerializeToString())
    found = plan_detector("first-", DetectorSource(path), read_onnx(path))
    found = replace(found, plan=replace(found.plan, bundle_classes=tuple(range(80))))
    entry, note = write_stage("first", found, "images", tmp_path)
    assert entry.rows_per_run == 1
    assert "input has no batch axis" in str(note)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda core: core.times(core.boxes, 0.02), "top left corner"),
        (lambda core: core.gather(core.boxes, [2, 3, 0, 1]), "empty, below a pixel"),
    ],
)
def test_a_guess_that_no_box_bears_out_is_not_believed(tmp_path: Path, spoil, words) -> None:
    def write(core: Core) -> None:
        core.out(core.columns(spoil(core), core.confidence, core.label), "rows")

    form = Format(write, Decode.DETECTIONS)
    more = {"box_format": BoxFormat.XYXY, "boxes": BoxUnit.PIXELS}
    assert words in str(planned(form, tmp_path, **more).doubt)
    if "corner" in words:
        with support.refuses(
            CheckpointError, "of the", "more confident boxes", words, "--first-boxes"
        ):
            planned(form, tmp_path)


def test_logits_say_by_their_width_what_they_are(tmp_path: Path) -> None:
    """Untrained detectors: neither the last column nor any other wins."""
    for columns, classes, decode in (
        (92, 80, Decode.DETR),
        (91, 80, Decode.RTDETR),
        (7, 6, Decode.DETR),
    ):

        def write(core: Core, columns: int = columns) -> None:
            core.out(core.gather(core.logits, [n % core.classes for n in range(columns)]), "logits")
            core.out(core.shares(core.centred()), "pred_boxes")

        form = Format(write, decode, classes=classes)
        found = planned(form, tmp_path)
        assert found.plan.decode is decode
        assert len(found.class_names) == classes
