from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.exporters.candidate_rows import in_order_of
from dyninfer.exporters.cascade.decodes import write_decode
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Coding,
    Decode,
    DetectorPlan,
    DetectorSource,
    Layout,
    Part,
    Scores,
)
from dyninfer.exporters.cascade.original import OriginalDetector, decode_one
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.cascade.stage import (
    _short,
    build,
    dump_plan,
    loosen_reshapes,
    read_plan,
    write_stage,
)
from dyninfer.exporters.graphs import GraphBuilder, closed, editable, open_model
from dyninfer.images.spec import ImageSpec
from tests.exporters.cascade import detectors
from tests.exporters.cascade.detectors import CELLS, HEIGHT, WIDTH

SIZE = (HEIGHT, WIDTH)
MADE = {
    "yolov5": (detectors.yolov5(3), Decode.YOLOV5),
    "yolov5 half": (detectors.yolov5(3, kind=detectors.HALF), Decode.YOLOV5),
    "yolov8": (detectors.yolov8(3), Decode.YOLOV8),
    "yolov8 rows": (detectors.yolov8(3, rows_last=True), Decode.YOLOV8),
    "nanodet": (detectors.nanodet(3, 7), Decode.NANODET),
    "nanodet in one": (detectors.nanodet(3, 8, in_one=True), Decode.NANODET),
    "detections": (detectors.detections(3), Decode.DETECTIONS),
    "detections normalised": (detectors.detections(3, normalised=True), Decode.DETECTIONS),
    "yolov10": (detectors.detections(3), Decode.YOLO_END2END),
    "end2end": (detectors.end2end_rows(3), Decode.YOLO_END2END),
    "end2end, nothing": (detectors.end2end_rows(3, limit=1.0), Decode.YOLO_END2END),
    "efficient nms": (detectors.efficient_nms(3), Decode.YOLO_END2END),
    **{
        f"boxes-scores {form.value}": (
            detectors.boxes_scores(3, form=form.value, extra_axis=form is BoxFormat.XYWH),
            Decode.BOXES_SCORES,
        )
        for form in BoxFormat
    },
}
NAMES = "one\ntwo\nthree\n"


def planned(name: str, folder: Path, **more) -> PlannedDetector:
    sketch, decode = MADE[name]
    path = sketch.save(folder / "tiny.onnx")
    names = folder / "names.txt"
    names.write_text(NAMES)
    if name.startswith("boxes-scores"):
        more["box_format"] = BoxFormat(name.split()[1])
    source = DetectorSource(path, decode=decode, class_names=names, **more)
    found = plan_detector("first-", source, read_onnx(path))
    return replace(found, plan=replace(found.plan, bundle_classes=(0, 1, 2)))


@pytest.mark.parametrize("name", MADE)
def test_the_decode_in_the_graph_gives_what_the_reference_gives(tmp_path: Path, name: str) -> None:
    detector = planned(name, tmp_path)
    session = open_model(build(detector, "images", dynamic=False))
    images = np.random.default_rng(1).random((4, 3, *SIZE), np.float32)
    original = OriginalDetector(detector.file, Layout.NCHW)
    seen = 0.0
    for image in images:
        boxes, scores = session.run(["boxes_xyxy", "class_scores"], {"images": image[None]})
        wanted = decode_one(detector.plan, original.run(image[None]))
        assert boxes.dtype == scores.dtype == np.float32
        np.testing.assert_allclose(boxes[0], wanted[0], atol=1e-3, rtol=1e-5)
        np.testing.assert_allclose(scores[0], wanted[1], atol=1e-6, rtol=1e-5)
        seen = max(seen, float(np.abs(wanted[1]).max()))
    assert (seen > 0.2) == (name != "end2end, nothing")


@pytest.mark.parametrize("name", ["yolov5", "yolov8 rows", "nanodet", "detections", "yolov10"])
def test_a_stage_gives_on_the_surest_boxes_for_the_classes_of_its_bundle(
    tmp_path: Path, name: str
) -> None:
    detector = planned(name, tmp_path)
    chosen = replace(detector.plan, bundle_classes=(2, -1), candidates=4)
    kept = replace(detector, plan=chosen)
    entry, _ = write_stage("first", kept, "images", tmp_path)
    assert [spec.shape[1:] for spec in entry.outputs] == [(4, 4), (4, 2)]
    session = open_model(onnx.load(str(tmp_path / entry.file)))
    images = np.random.default_rng(3).random((1, 3, *SIZE), np.float32)
    names = ("boxes_xyxy", "class_scores")
    found = dict(zip(names, session.run(names, {"images": images}), strict=True))
    outputs = OriginalDetector(detector.file, Layout.NCHW).run(images)
    boxes, scores = decode_one(replace(chosen, candidates=None), outputs)
    best = np.argsort(-scores[:, 0], kind="stable")[:4]  # the other is a class it does not have
    wanted = {"boxes_xyxy": boxes[None, best], "class_scores": scores[None, best]}
    found = in_order_of(wanted, found, 1e-2, 1e-6)
    np.testing.assert_allclose(found["boxes_xyxy"], wanted["boxes_xyxy"], atol=1e-3)
    np.testing.assert_allclose(found["class_scores"], wanted["class_scores"], atol=1e-6)
    assert read_plan(tmp_path / entry.file) == chosen


@pytest.mark.parametrize("name", MADE)
def test_batches_of_any_size_give_the_rows_of_single_images(tmp_path: Path, name: str) -> None:
    detector = planned(name, tmp_path)
    entry, note = write_stage("first", detector, "images", tmp_path)
    one_by_one = "end2end" in name
    assert entry.rows_per_run == (1 if one_by_one else None)
    assert (note is not None) == one_by_one
    if one_by_one:
        return
    session = open_model(onnx.load(str(tmp_path / entry.file)))
    images = np.random.default_rng(2).random((5, 3, *SIZE), np.float32)
    together = session.run(None, {"images": images})
    for row, image in enumerate(images):
        alone = session.run(None, {"images": image[None]})
        for whole, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[row], single[0], atol=1e-4)


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("name", MADE)
def test_every_decode_is_the_same_in_the_oldest_and_the_newest_opset(
    tmp_path: Path, name: str, opset: int
) -> None:
    sketch, _ = MADE[name]
    newer = sketch.save(tmp_path / "newer.onnx", opset=opset)
    detector = planned(name, tmp_path)
    other = replace(detector, file=read_onnx(newer))
    built = [build(found, "images", dynamic=True) for found in (detector, other)]
    assert [entry.version for entry in built[1].opset_import] == [opset]
    image = detector.samples[0][0]
    one, two = (open_model(model).run(None, {"images": image}) for model in built)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_graph_within_the_graph_is_taken_along(tmp_path: Path) -> None:
    inner = [
        onnx.helper.make_graph(
            [onnx.helper.make_node("Mul", ["images", factor], [f"{factor}_images"])],
            factor,
            [],
            [onnx.helper.make_tensor_value_info(f"{factor}_images", 1, None)],
        )
        for factor in ("one", "two")
    ]
    path = detectors.yolov8(3).save(tmp_path / "plain.onnx")
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.input[:] = ["chosen" if n == "images" else n for n in node.input]
    dark = onnx.helper.make_node(
        "If", ["dark"], ["chosen"], then_branch=inner[0], else_branch=inner[1]
    )
    model.graph.node.insert(1, dark)
    for name, value in (("one", np.float32(1)), ("two", np.float32(2)), ("dark", np.True_)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    path.write_bytes(model.SerializeToString())
    found = plan_detector("first-", DetectorSource(path), read_onnx(path))
    found = replace(found, plan=replace(found.plan, bundle_classes=(0, 1, 2)))
    image, outputs = found.samples[0]
    boxes, _ = open_model(build(found, "images", dynamic=True)).run(None, {"images": image})
    np.testing.assert_allclose(boxes[0], decode_one(found.plan, outputs)[0], atol=1e-3)


@pytest.mark.parametrize(("batch", "declared"), [(1, 1), (4, 4), (1, "batch")])
def test_a_batch_that_was_baked_into_reshapes_is_loosened(tmp_path, batch, declared) -> None:
    """A file may also declare any, and be made for one image all the same."""
    path = detectors.yolov8(3, baked=batch).save(tmp_path / "tiny.onnx", batch=declared)
    found = plan_detector("first-", DetectorSource(path), read_onnx(path))
    found = replace(found, plan=replace(found.plan, bundle_classes=(0, 1, 2)))
    dynamic = build(found, "images", dynamic=True)
    images = np.random.default_rng(3).random((3, 3, *SIZE), np.float32)
    with pytest.raises(Exception, match="Reshape"):
        open_model(dynamic).run(None, {"images": images})
    loosened = loosen_reshapes(dynamic, np.repeat(images[:1], batch, 0))
    together = open_model(loosened).run(None, {"images": images})
    original = OriginalDetector(found.file, Layout.NCHW)
    for row, image in enumerate(images):
        wanted = decode_one(found.plan, original.run(image[None]))
        np.testing.assert_allclose(together[0][row], wanted[0], atol=1e-3)
        np.testing.assert_allclose(together[1][row], wanted[1], atol=1e-5)
    assert write_stage("first", found, "images", tmp_path)[0].rows_per_run is None


def test_a_batch_is_loosened_also_where_it_was_joined_with_another_axis() -> None:
    """Rows of all images in one axis: a batch that is copied from there would be theirs."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        joined (float[batch, 3, 2, 2] images) => (float[n, 3, 4] rows)
        <int64[2] flat = {-1, 4}, int64[3] baked = {1, 3, 4}>
        { together = Reshape(images, flat)  rows = Reshape(together, baked) }
    """)
    images = np.random.default_rng(4).random((5, 3, 2, 2), np.float32)
    (rows,) = open_model(loosen_reshapes(model, images[:1])).run(None, {"images": images})
    np.testing.assert_array_equal(rows, images.reshape(5, 3, 4))


def plan_of(decode: Decode, **more) -> DetectorPlan:
    """By default boxes in the output "a", and two classes' scores in "b"."""
    parts = {"boxes": (Part(("a",), "nav"),), "scores": Part(("b",), "nav"), "columns": 2}
    fields = {**parts, "anchors": 1, "class_numbers": (0, 1)} | more
    return DetectorPlan(
        decode=decode, layout=Layout.NCHW, image=ImageSpec(height=HEIGHT, width=WIDTH), **fields
    )


@pytest.mark.parametrize(
    ("form", "box"),
    [
        (BoxFormat.XYXY, (2, 4, 8, 16)),
        (BoxFormat.CXCYWH, (5, 10, 6, 12)),
        (BoxFormat.XYWH, (2, 4, 6, 12)),
        (BoxFormat.YXYX, (4, 2, 16, 8)),
    ],
)
def test_the_reference_reads_every_box_format(form: BoxFormat, box: tuple) -> None:
    plan = plan_of(Decode.BOXES_SCORES, box_format=form)
    outputs = {"a": np.array([[box]], np.float32), "b": np.array([[[0.5, 0.25]]], np.float32)}
    boxes, scores = decode_one(plan, outputs)
    assert boxes.tolist() == [[2, 4, 8, 16]]
    assert scores.tolist() == [[0.5, 0.25]]
    shares = {
        "a": outputs["a"]
        / (
            np.array([HEIGHT, WIDTH] * 2)
            if form is BoxFormat.YXYX
            else np.array([WIDTH, HEIGHT] * 2)
        ),
        "b": outputs["b"],
    }
    boxes, _ = decode_one(replace(plan, unit=BoxUnit.NORMALISED), shares)
    np.testing.assert_allclose(boxes, [[2, 4, 8, 16]], rtol=1e-6)


def test_the_reference_reads_nanodet_as_its_definition_says() -> None:
    plan = plan_of(Decode.NANODET, coding=Coding.DISTANCES, strides=(32,), bins=8, anchors=2)
    sides = np.full((1, 2, 4, 8), -1000.0)
    sides[0, 0, :, 0] = 0  # all at distance 0
    sides[0, 1, (0, 1, 2, 3), (1, 2, 3, 4)] = 0  # left 1, top 2, right 3, bottom 4 strides
    scores = np.array([[[0.1, 0.9], [0.8, 0.2]]])
    boxes, found = decode_one(plan, {"b": scores, "a": sides.reshape(1, 2, 32)})
    assert boxes.tolist() == [[16, 16, 16, 16], [48 - 32, 16 - 64, 48 + 96, 16 + 128]]
    np.testing.assert_allclose(found, scores[0])


def test_the_reference_multiplies_objectness_and_fills_up_end2end_rows() -> None:
    rows = np.array([[[10, 10, 4, 6, 0.5, 0.5, 1.0]]], np.float32)
    plan = plan_of(
        Decode.YOLOV5,
        boxes=(Part(("a",), "nav", 0, 4),),
        scores=Part(("a",), "nav", 5, 7),
        objectness=Part(("a",), "nav", 4, 5),
        box_format=BoxFormat.CXCYWH,
    )
    boxes, scores = decode_one(plan, {"a": rows})
    assert boxes.tolist() == [[8, 7, 12, 13]]
    assert scores.tolist() == [[0.25, 0.5]]
    plan = plan_of(
        Decode.YOLO_END2END,
        boxes=(Part(("a",), "av", 1, 5),),
        scores=Part(("a",), "av", 6, 7),
        labels=Part(("a",), "av", 5, 6),
        anchors=3,
        best=True,
        varies=True,
    )
    rows = np.array([[0, 1, 2, 3, 4, 1, 0.25], [0, 5, 6, 7, 8, 0, 0.75]], np.float32)
    boxes, scores = decode_one(plan, {"a": rows})
    assert boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert scores.tolist() == [[0.75, 0], [0, 0.25], [0, 0]]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(-1, 2), min_size=1, max_size=5))
def test_any_choice_of_class_columns_is_the_same_in_graph_and_reference(
    tmp_path_factory: pytest.TempPathFactory, columns: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("columns")
    detector = planned("yolov8", folder)
    detector = replace(detector, plan=replace(detector.plan, bundle_classes=tuple(columns)))
    image, outputs = detector.samples[0]
    (scores,) = open_model(build(detector, "images", dynamic=True)).run(
        ["class_scores"], {"images": image}
    )
    assert scores.shape == (1, CELLS, len(columns))
    np.testing.assert_allclose(scores[0], decode_one(detector.plan, outputs)[1], atol=1e-6)


def test_a_plan_survives_its_json(tmp_path: Path) -> None:
    from pydantic import TypeAdapter

    for name in ("nanodet", "boxes-scores yxyx"):
        plan = planned(name, tmp_path).plan
        assert TypeAdapter(DetectorPlan).validate_json(dump_plan(plan)) == plan


def one(value: float, count: int, width: int = 4) -> np.ndarray:
    return np.full((1, count, width), value, np.float32)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_the_reference_lays_cells_row_by_row_over_sides_rounded_up(offset: float) -> None:
    image = ImageSpec(height=17, width=24)
    plan = replace(
        plan_of(Decode.YOLOX, coding=Coding.CELLS, strides=(8, 16), anchors=13),
        image=image,
        cell_offset=offset,
    )
    codes = one(0, 13)
    codes[0, :, :2], codes[0, :, 2:] = 0.25, np.log([2, 4])
    boxes, _ = decode_one(plan, {"a": codes, "b": one(0.5, 13, 2)})
    cells = [(8, x, y) for y in range(3) for x in range(3)]
    cells += [(16, x, y) for y in range(2) for x in range(2)]
    expected = [
        (
            *((x + offset + 0.25 - 1) * s, (y + offset + 0.25 - 2) * s),
            *((x + offset + 0.25 + 1) * s, (y + offset + 0.25 + 2) * s),
        )
        for s, x, y in cells
    ]
    np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("form", [BoxFormat.CXCYWH, BoxFormat.CYCXHW])
def test_the_reference_reads_peaks_that_are_no_less_than_their_neighbours(form, logs) -> None:
    heat = np.zeros((1, 2, 2, 3), np.float32)
    heat[0, 0] = [[0.9, 0.8, 0.8], [0.1, 0.2, 0.3]]
    heat[0, 1] = [[0.5, 0.1, 0.6], [0.5, 0.1, 0.1]]
    sides = np.log([3, 5]) if logs else (3, 5)
    codes = np.zeros((1, 4, 2, 3), np.float32)
    codes[0] = np.array([0.25, 0.5, *sides])[:, None, None]
    plan = plan_of(
        Decode.CENTERNET,
        boxes=(Part(("a",), "nvhw"),),
        scores=Part(("b",), "nvhw"),
        coding=Coding.PEAKS,
        strides=(4,),
        best=True,
        anchors=3,
        log_sizes=logs,
        box_format=form,
        cell_offset=0.0,
    )
    plan = replace(plan, image=ImageSpec(height=8, width=12))
    boxes, scores = decode_one(plan, {"a": codes, "b": heat})
    np.testing.assert_allclose(scores, [[0.9, 0.5], [0.8, 0.6], [0, 0.5]], rtol=1e-6)
    x, y, w, h = (0.25, 0.5, 3, 5) if form is BoxFormat.CXCYWH else (0.5, 0.25, 5, 3)
    places = [(0, 0), (2, 0), (0, 1)]
    expected = [
        (4 * (c + x - w / 2), 4 * (r + y - h / 2), 4 * (c + x + w / 2), 4 * (r + y + h / 2))
        for c, r in places
    ]
    np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-5)


def test_the_reference_makes_probabilities_of_any_logits() -> None:
    logits = np.array([[[0, 3], [-2000, 2000], [1, 1]]], np.float32)
    plan = plan_of(Decode.RTDETR, score_kind=Scores.LOGITS, anchors=3)
    _, found = decode_one(plan, {"a": one(1, 3), "b": logits})
    e3, e1 = 1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(found, [[0.5, e3], [0, 1], [e1, e1]], atol=1e-9, rtol=1e-6)
    soft = plan_of(Decode.DETR, score_kind=Scores.SOFTMAX, anchors=3)
    _, found = decode_one(soft, {"a": one(1, 3), "b": logits})
    share = 1 / (1 + np.exp(3.0))
    np.testing.assert_allclose(found, [[share, 1 - share], [0, 1], [0.5, 0.5]], atol=1e-7)
    filled = replace(plan, best=True, varies=True, anchors=5)
    _, found = decode_one(filled, {"a": one(1, 3), "b": logits})
    np.testing.assert_allclose(found[3:], 0)


def test_the_reference_leaves_out_what_is_not_valid_or_no_class_of_the_bundle() -> None:
    scores = np.array([[[0.5, 0.25, 0.125], [0.75, 1, 0], [0.25, 0.25, 0.25]]], np.float32)
    parts = {"columns": 3, "class_numbers": (0, 1, 2), "anchors": 3}
    for count, valid in ((0, 0), (1, 1), (2, 2), (3, 3)):
        plan = plan_of(Decode.BOXES_SCORES, count=Part(("c",), "n1"), **parts)
        given = {"a": one(1, 3), "b": scores, "c": np.array([[count]])}
        _, found = decode_one(plan, given)
        np.testing.assert_array_equal(found, np.r_[scores[0, :valid], np.zeros((3 - valid, 3))])
    plan = plan_of(Decode.BOXES_SCORES, bundle_classes=(2, -1, 0), **parts)
    _, found = decode_one(plan, {"a": one(1, 3), "b": scores})
    np.testing.assert_array_equal(found, np.c_[scores[0, :, 2], np.zeros(3), scores[0, :, 0]])
    boxes = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    for candidates, rows in ((2, [1, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])):
        kept = replace(plan_of(Decode.BOXES_SCORES, **parts), candidates=candidates)
        found = decode_one(kept, {"a": boxes, "b": scores})
        np.testing.assert_array_equal(found[0], boxes[0, rows])
        np.testing.assert_array_equal(found[1], scores[0, rows])


def in_graph(plan: DetectorPlan, outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What the decode gives for a detector's outputs of one image."""
    ports = [
        onnx.helper.make_tensor_value_info(name, 1, [f"{name}{axis}" for axis in range(array.ndim)])
        for name, array in outputs.items()
    ]
    graph = onnx.helper.make_graph([], "decode", ports, [])
    opset = onnx.helper.make_opsetid("", 17)
    model = editable(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
    builder = GraphBuilder(model.graph, "decode")
    pair = write_decode(builder, plan, {value.name: value for value in model.graph.inputs})
    for value, name in zip(pair, ("boxes", "scores"), strict=True):
        last = builder.apply("Identity", value)
        last.name, last.type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(last)
    feed = {name: array.astype(np.float32) for name, array in outputs.items()}
    return [array[0] for array in open_model(closed(model)).run(["boxes", "scores"], feed)]


FLAT = {"boxes": (Part(("a",), "av"),), "scores": Part(("b",), "a"), "labels": Part(("c",), "a")}
LIST = {"boxes": (Part(("a",), "nav"),), "scores": Part(("b",), "na"), "labels": Part(("c",), "na")}
BOXES = np.arange(12.0).reshape(1, 3, 4)
WIDE = np.array([[[0.1, 0.2, 0.7], [0.5, 0.9, 0.4], [0.3, 0.8, 0.05]]])


@pytest.mark.parametrize("count", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("anchors", [2, 3, 5])
def test_lists_of_any_length_are_cut_or_filled_up(count, anchors) -> None:
    """Those beyond the number that a detector says are of no meaning."""
    more = {"columns": 0, "class_numbers": (1, 4), "anchors": anchors, "best": True}
    if count is not None:
        more["count"] = Part(("d",), "n1")
    given = {"a": BOXES[0], "b": np.array([0.25, 0.75, 0.5]), "c": np.array([4.0, 1, 4])}
    counted = {"d": np.array([count])} if count is not None else {}
    plan = plan_of(Decode.BOXES_SCORES_LABELS, **FLAT, **more, varies=True)
    valid = 3 if count is None else count
    order = [row for row in (1, 2, 0) if row < valid][:anchors]
    scores = np.zeros((anchors, 2))
    for place, row in enumerate(order):
        scores[place, [4, 1, 4][row] // 4] = given["b"][row]
    for found in (in_graph(plan, given | counted), decode_one(plan, given | counted)):
        np.testing.assert_allclose(found[1], scores)
        np.testing.assert_allclose(found[0][: len(order)], BOXES[0, order])
    if anchors == 3:  # as many in every picture
        batched = {name: array.reshape(1, *array.shape) for name, array in given.items()} | counted
        plan = plan_of(Decode.BOXES_SCORES_LABELS, **LIST, **more | {"best": False})
        boxes, found_scores = in_graph(plan, batched)
        np.testing.assert_allclose(boxes, BOXES[0])
        kept = [row for row in range(3) if row < valid]
        assert found_scores.sum(1).tolist() == [given["b"][row] * (row in kept) for row in range(3)]


@pytest.mark.parametrize("kind", Scores)
@pytest.mark.parametrize("own", [(0, 1, 2), (1, 2), (2, 0)])
@pytest.mark.parametrize("bundle", [(), (0, 1), (1, 0), (1,), (-1, 1, -1, 0)])
@pytest.mark.parametrize("rows", [2, 3, 4])
def test_graph_and_reference_agree_on_classes_kinds_and_rows(kind, own, bundle, rows) -> None:
    more = {"score_kind": kind, "class_numbers": own, "bundle_classes": bundle, "columns": 3}
    if kind is not Scores.SOFTMAX:  # which has so many boxes in every picture
        more |= {"best": True, "varies": True}
    elif rows != 3:
        more["candidates"] = rows
    anchors = 3 if kind is Scores.SOFTMAX else rows
    plan = plan_of(Decode.BOXES_SCORES, anchors=anchors, **more)
    given = {"a": BOXES, "b": WIDE if kind is Scores.PROBABILITIES else 9 * WIDE - 4}
    found, expected = in_graph(plan, given), decode_one(plan, given)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-7)
    assert found[1].shape == (min(rows, plan.rows), len(bundle or own))
    if kind is not Scores.SOFTMAX and rows == 4:
        assert not found[1][3].any()
    single = [in_graph(replace(plan, bundle_classes=(n,)), given)[1] for n in range(len(own))]
    if kind is not Scores.SOFTMAX or rows == 3:  # else the surest depend on the classes
        everything = in_graph(replace(plan, bundle_classes=()), given)[1]
        np.testing.assert_allclose(np.concatenate(single, 1), everything)


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : it fails", "it fails"),
        ("x" * 130, "x" * 120),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while "
            "running Reshape node. Name:'first/Reshape_7' Status Message: reshape_helper.h:40",
            "batches fail in Reshape 'first/Reshape_7'",
        ),
    ],
)
def test_reasons_of_onnx_runtime_are_told_without_its_codes_and_files(reason, short) -> None:
    assert _short(reason) == short
