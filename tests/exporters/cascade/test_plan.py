from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyninfer import CheckpointError, ConfigError, InputError
from dyninfer.exporters.cascade.conventions import SCALES
from dyninfer.exporters.cascade.measured import Measured, cells
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Decode,
    DetectorSource,
    Layout,
)
from dyninfer.exporters.cascade.original import sample_photos
from dyninfer.exporters.cascade.plan import plan_detector
from dyninfer.exporters.cascade.recognise import recognise
from dyninfer.exporters.class_names import COCO
from dyninfer.images.spec import ColorOrder, ImageSpec, ResizeMode
from tests import support
from tests.exporters.cascade import detectors
from tests.exporters.cascade.detectors import CELLS, FLOAT, HALF, UINT8

NANODET_MEAN = (103.53, 116.28, 123.675)
NANODET_STD = (57.375, 57.12, 58.395)


def plan(path: Path, **more):
    return plan_detector("second-", DetectorSource(path, **more), read_onnx(path))


@pytest.mark.parametrize(
    ("sketch", "decode"),
    [
        (detectors.yolov5(80), Decode.YOLOV5),
        (detectors.yolov5(3), Decode.YOLOV5),
        (detectors.yolov8(80), Decode.YOLOV8),
        (detectors.yolov8(7), Decode.YOLOV8),
        (detectors.yolov8(80, rows_last=True), Decode.YOLOV8),
        (detectors.nanodet(80, 8), Decode.NANODET),
        (detectors.nanodet(80, 11), Decode.NANODET),
        (detectors.nanodet(2, 7), Decode.NANODET),
        (detectors.nanodet(80, 8, in_one=True), Decode.NANODET),
        (detectors.detections(80), Decode.DETECTIONS),
        (detectors.end2end_rows(80), Decode.YOLO_END2END),
        (detectors.efficient_nms(80), Decode.YOLO_END2END),
        (detectors.boxes_scores(80), Decode.BOXES_SCORES),
        (detectors.boxes_scores(4, extra_axis=True), Decode.BOXES_SCORES),
    ],
    ids=lambda value: value.value if isinstance(value, Decode) else "",
)
def test_the_decode_is_told_from_the_outputs(tmp_path, sketch, decode) -> None:
    planned = plan(sketch.save(tmp_path / "tiny.onnx"))
    assert planned.plan.decode is decode
    assert planned.guesses is not None
    assert f"guessed decode {decode.value}" in planned.guesses
    assert "--second-decode" in planned.guesses


def test_class_names_of_the_metadata_settle_what_shapes_leave_open(tmp_path) -> None:
    rows = detectors.yolov8(3, rows_last=True)
    with support.refuses(ConfigError, "--second-decode", "(1, 42, 7)", "boxes-scores"):
        plan(rows.save(tmp_path / "tiny.onnx"))
    names = {"names": "{0: 'cat', 1: 'dog', 2: 'cow'}"}
    planned = plan(rows.save(tmp_path / "tiny.onnx", metadata=names))
    assert (planned.plan.decode, len(planned.plan.class_numbers)) == (Decode.YOLOV8, 3)
    assert planned.class_names == ("cat", "dog", "cow")
    more = {"names": "['cat', 'dog']"}
    planned = plan(rows.save(tmp_path / "tiny.onnx", metadata=more))
    assert (planned.plan.decode, len(planned.plan.class_numbers)) == (Decode.YOLOV5, 2)


@pytest.mark.parametrize("names", ["__import__('os').system('true')", "{0: a, 7: b}", "3", "[1"])
def test_names_in_the_metadata_are_read_and_never_run(tmp_path, names) -> None:
    path = detectors.yolov8(3).save(tmp_path / "tiny.onnx", metadata={"names": names})
    with support.refuses(ConfigError, "metadata"):
        plan(path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ('{"0": "cat", "1": "NO", "2": "\\u00e9clair"}', ("cat", "NO", "\xe9clair")),  # JSON
        ("{0: 'cat', 1: 'dog', 2: 'cow'}", ("cat", "dog", "cow")),
        ("['cat', 'dog', 'cow']", ("cat", "dog", "cow")),
        ("{2: cow, 0: on, 1: 012}", ("on", "012", "cow")),
        ("None", ("class_0", "class_1", "class_2")),
        ("{}", ("class_0", "class_1", "class_2")),
    ],
)
def test_names_in_the_metadata_in_all_their_forms(tmp_path, names, expected) -> None:
    path = detectors.yolov8(3).save(tmp_path / "tiny.onnx", metadata={"names": names})
    planned = plan(path, decode=Decode.YOLOV8)
    assert planned.class_names == expected
    assert ("class-names" in (planned.guesses or "")) is (expected[0] == "class_0")


@pytest.mark.parametrize("names", ["['cat', 'dog']", "{0: cat, 2: dog, 3: cow}", "[a, b, '']"])
def test_names_in_the_metadata_that_do_not_fit_are_answered_with_the_option(tmp_path, names):
    path = detectors.yolov8(3).save(tmp_path / "tiny.onnx", metadata={"names": names})
    with support.refuses(ConfigError, "tiny.onnx", "--second-class-names"):
        plan(path, decode=Decode.YOLOV8)


def test_names_in_a_file_go_before_those_of_the_metadata_and_must_fit(tmp_path) -> None:
    path = detectors.yolov8(3).save(tmp_path / "tiny.onnx", metadata={"names": "[a, b, c]"})
    file = tmp_path / "names.txt"
    file.write_text("x\ny\nz\n")
    assert plan(path, class_names=file).class_names == ("x", "y", "z")
    file.write_text("x\ny\n")
    with support.refuses(ConfigError, "names.txt", "2 classes", "have 3"):
        plan(path, class_names=file)


def test_a_model_for_another_task_is_named(tmp_path) -> None:
    path = detectors.yolov8(3).save(tmp_path / "tiny.onnx", metadata={"task": "segment"})
    with support.refuses(ConfigError, "'segment'", "(1, 7, 42)"):
        plan(path)
    assert plan(path, decode=Decode.YOLOV8).class_names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("rows_last", [False, True])
@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("segment", "instance segmentation (output1 holds prototypes of masks"),
        ("pose", "poses (numbers beside the scores are places"),
        ("obb", "oriented boxes (its last numbers are angles"),
        ("classify", "classification (one row of scores"),
    ],
)
def test_a_model_for_another_task_is_told_without_metadata(tmp_path, task, told, rows_last) -> None:
    path = detectors.of_another_task(task, rows_last=rows_last).save(tmp_path / f"{task}.onnx")
    with support.refuses(ConfigError, told, "output0 (1, ", "give "):
        plan(path)


@pytest.mark.parametrize(
    "sketch",
    [detectors.yolov8(20), detectors.yolov5(3), detectors.detections(3), detectors.nanodet(3, 8)],
)
def test_a_detector_of_boxes_is_of_no_other_task(tmp_path, sketch) -> None:
    assert plan(sketch.save(tmp_path / "tiny.onnx")).class_names


@pytest.mark.parametrize(
    ("sketch", "asked"),
    [
        (detectors.yolov8(3), Decode.NANODET),
        (detectors.detections(3), Decode.BOXES_SCORES),
        (detectors.boxes_scores(3), Decode.DETECTIONS),
        (detectors.nanodet(3, 7), Decode.YOLOV5),
    ],
)
def test_a_decode_that_does_not_fit_shows_the_outputs(tmp_path, sketch, asked) -> None:
    with support.refuses(ConfigError, asked.value, "--second-decode", "(1, "):
        plan(sketch.save(tmp_path / "tiny.onnx"), decode=asked)


def test_outputs_that_are_no_detections_are_shown(tmp_path) -> None:
    sketch = detectors.Sketch()
    flat = sketch.reshape(sketch.levels(5), [0, CELLS * 5])
    for name in ("logits", "others"):  # one alone would be a classifier's
        sketch.output(flat, name, ["batch", CELLS * 5])
    with support.refuses(ConfigError, "logits (1, 210)", "yolov5, yolov8, yolox"):
        plan(sketch.save(tmp_path / "tiny.onnx"))


def test_logits_are_not_taken_for_probabilities(tmp_path) -> None:
    sketch = detectors.Sketch()
    raw = sketch.times(sketch.levels(4 + 80), 50)
    sketch.output(sketch.add("Transpose", raw, perm=[0, 2, 1]), "out", ["batch", 84, CELLS])
    with support.refuses(CheckpointError, "from -", "sigmoid", "--second-decode"):
        plan(sketch.save(tmp_path / "tiny.onnx"))


def test_the_image_is_guessed_by_the_kind_of_detector(tmp_path) -> None:
    yolo = plan(detectors.yolov8(80).save(tmp_path / "a.onnx")).plan.image
    assert (yolo.resize, yolo.color_order) == (ResizeMode.LETTERBOX, ColorOrder.RGB)
    assert (yolo.mean, yolo.std) == ((0, 0, 0), (255, 255, 255))
    nano = plan(detectors.nanodet(80, 8).save(tmp_path / "b.onnx")).plan.image
    assert (nano.resize, nano.color_order) == (ResizeMode.LETTERBOX, ColorOrder.BGR)
    assert (nano.mean, nano.std) == (NANODET_MEAN, NANODET_STD)
    last = plan(detectors.detections(80).save(tmp_path / "c.onnx", layout="nhwc")).plan
    assert last.layout is Layout.NHWC
    assert (last.image.resize, last.image.std) == (ResizeMode.STRETCH, (1, 1, 1))
    assert (last.image.height, last.image.width) == (32, 64)
    whole = plan(detectors.yolov8(80).save(tmp_path / "d.onnx", image_type=UINT8)).plan.image
    assert (whole.mean, whole.std) == ((0, 0, 0), (1, 1, 1))


def test_what_is_said_is_not_guessed(tmp_path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(COCO))
    path = detectors.boxes_scores(80).save(tmp_path / "tiny.onnx")
    planned = plan(
        path,
        decode=Decode.BOXES_SCORES,
        mean=(1, 2, 3),
        std=(4, 5, 6),
        color=ColorOrder.BGR,
        resize=ResizeMode.PAD_BOTTOM_RIGHT,
        class_names=names,
        boxes=BoxUnit.PIXELS,
        box_format=BoxFormat.CXCYWH,
    )
    assert planned.guesses is None
    image = planned.plan.image
    assert (image.mean, image.std, image.color_order) == ((1, 2, 3), (4, 5, 6), ColorOrder.BGR)
    assert planned.plan.box_format is BoxFormat.CXCYWH


@pytest.mark.parametrize("normalised", [False, True])
def test_the_unit_of_boxes_is_measured(tmp_path, normalised) -> None:
    path = detectors.detections(80, normalised=normalised).save(tmp_path / "tiny.onnx")
    unit = BoxUnit.NORMALISED if normalised else BoxUnit.PIXELS
    planned = plan(path)
    assert planned.plan.unit is unit
    assert "empty" not in str(planned.doubt)
    forced = plan(path, boxes=BoxUnit.PIXELS)
    assert forced.plan.unit is BoxUnit.PIXELS
    if normalised:
        assert forced.doubt is not None
        assert "--second-boxes" in forced.doubt


@pytest.mark.parametrize("form", ["xyxy", "cxcywh"])
def test_corners_are_told_from_centres_by_their_order(tmp_path, form) -> None:
    path = detectors.boxes_scores(80, form=form).save(tmp_path / "tiny.onnx")
    assert plan(path).plan.box_format is BoxFormat(form)


def test_whole_numbers_cannot_be_normalised(tmp_path) -> None:
    path = detectors.yolov8(80).save(tmp_path / "tiny.onnx", image_type=UINT8)
    with support.refuses(InputError, "whole numbers", "leave mean and std out"):
        plan(path, std=(255, 255, 255))


@pytest.mark.parametrize("kind", [FLOAT, HALF, UINT8])
def test_a_size_is_taken_where_the_file_leaves_it_open(tmp_path, kind) -> None:
    path = detectors.yolov8(80).save(
        tmp_path / "tiny.onnx", size=("height", "width"), image_type=kind
    )
    with support.refuses(ConfigError, "--second-size", "(?, 3, ?, ?)"):
        plan(path)
    planned = plan(path, size=(32, 64))
    assert planned.samples[0][0].shape == (1, 3, 32, 64)
    with support.refuses(CheckpointError, "48x100", "multiples of 32"):
        plan(path, size=(48, 100))


@pytest.mark.parametrize("noted", ["[32, 64]", "[32]", "32", "[a, b]", "[", "[-1, 64]"])
def test_the_size_in_the_metadata_is_taken_where_it_is_one(tmp_path, noted) -> None:
    path = detectors.yolov8(80).save(
        tmp_path / "tiny.onnx", size=("h", "w"), metadata={"imgsz": noted}
    )
    if noted == "[32, 64]":
        planned = plan(path)
        assert (planned.plan.image.height, planned.plan.image.width) == (32, 64)
        assert "size 32x64" in str(planned.guesses)
        assert plan(path, size=(32, 64)).plan == planned.plan
        return
    with support.refuses((ConfigError, InputError), "--second-size"):
        plan(path)


def test_a_size_that_is_given_goes_before_the_one_in_the_metadata(tmp_path) -> None:
    path = detectors.yolov8(80).save(
        tmp_path / "tiny.onnx", size=("h", "w"), metadata={"imgsz": "[64, 64]"}
    )
    planned = plan(path, size=(32, 64))
    assert (planned.plan.image.height, planned.plan.image.width) == (32, 64)
    assert "size 64x64" not in str(planned.guesses)


def test_a_size_that_is_not_the_files_is_refused(tmp_path) -> None:
    path = detectors.yolov8(80).save(tmp_path / "tiny.onnx")
    for size in ((64, 64), (32, 32), (64, 32), (31, 64)):
        told = f"--second-size is {size[0]}x{size[1]}, but", "32x64 only", "--second-size"
        with support.refuses(InputError, *told):
            plan(path, size=size)


def test_a_layout_that_the_shape_does_not_tell_is_asked_for(tmp_path) -> None:
    sketch = detectors.yolov8(80)
    path = sketch.save(tmp_path / "tiny.onnx")
    import onnx

    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "colours"
    path.write_bytes(model.SerializeToString())
    with support.refuses(ConfigError, "--second-layout", "pictures"):
        plan(path)
    assert plan(path, layout=Layout.NCHW).plan.layout is Layout.NCHW


def test_nanodet_plus_has_its_centres_on_the_corners_of_cells(tmp_path) -> None:
    sizes = cells((64, 64), (8, 16, 32, 64))
    outputs = {"output": np.zeros((1, sizes, 112), np.float32)}
    assert recognise(Measured((outputs,), (64, 64), None)) is Decode.NANODET
    path = detectors.nanodet(80, 8, in_one=True).save(tmp_path / "tiny.onnx")
    assert plan(path).plan.cell_offset == 0.5
    assert plan(path, cell_offset=0.0).plan.cell_offset == 0.0


@pytest.mark.parametrize(
    ("size", "strides", "count"),
    [((640, 640), (8, 16, 32), 8400), ((224, 224), (8, 16, 32), 1029), ((100, 64), (32,), 8)],
)
def test_cells_of_all_levels(size, strides, count) -> None:
    assert cells(size, strides) == count


def by_mean_colour(folder: Path, seen: list[np.ndarray]) -> Path:
    """Sure of a class where the mean of each channel is that of a photo, as was ``seen``."""
    made = detectors.Sketch()
    means = made.reshape(made.add("ReduceMean", "images", axes=[2, 3]), [0, 1, 3])
    colours = made.constant(np.stack(seen)[None].astype(np.float32))
    scale = 9 / np.ptp(seen[-1])
    away = made.times(made.add("Abs", made.add("Sub", means, colours)), scale)
    far = made.add("ReduceSum", away, made.constant(np.array([2])), keepdims=0)
    sure = made.reshape(made.add("Exp", made.add("Neg", far)), [0, 1, 3])
    rows = made.constant(np.ones((1, CELLS, 1), np.float32))
    made.output(made.corners(made.levels(4)), "boxes", ["batch", CELLS, 4])
    made.output(made.add("Mul", sure, rows), "scores", ["batch", CELLS, 3])
    return made.save(folder / "tiny.onnx", metadata={"names": "[person, cat, cup]"})


@pytest.mark.parametrize("scale", range(3))
@pytest.mark.parametrize("unknown", [0, 1, 2])
def test_pictures_are_normalised_so_that_the_photos_show_what_they_do(tmp_path, scale, unknown):
    """By 0 to 1 unless it is right that way on fewer than two photos, and on more in another."""
    mean, std = SCALES[scale]
    size = {"height": detectors.HEIGHT, "width": detectors.WIDTH}
    image = ImageSpec(**size, resize=ResizeMode.LETTERBOX, mean=mean, std=std)
    seen = [image.prepare(photo).mean((1, 2)) for photo in sample_photos()[:3]]
    for place in range(unknown):
        seen[place] = seen[place] + 1000 * np.ptp(seen)
    found = plan(by_mean_colour(tmp_path, seen))
    expected = (mean, std) if unknown < 2 else SCALES[0]
    assert (found.plan.image.mean, found.plan.image.std) == expected
    told = ", std ".join(":".join(f"{n:g}" for n in numbers) for numbers in expected)
    assert f"mean {told}" in str(found.guesses)
    assert found.plan.image.resize is ResizeMode.LETTERBOX
    said = plan(found.file.path, mean=(1.0, 2.0, 3.0))
    assert (said.plan.image.mean, said.plan.image.std) == ((1, 2, 3), (1, 1, 1))


@pytest.mark.parametrize("size", [(0, 64), (64, 0), (16385, 32), (32, 16385)])
def test_sides_are_within_what_an_image_can_have(tmp_path, size) -> None:
    path = detectors.yolov8(3).save(tmp_path / "any.onnx", size=("h", "w"))
    shown = f"--second-size is {size[0]}x{size[1]}, expected sides from 1 to 16384 pixels"
    with support.refuses(InputError, shown):
        plan(path, size=size)
