"""Files in float16 and in 8 bits, as converters and quantisers leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

import dyninfer
from dyninfer import CheckpointError
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.exporters.cascade.arithmetic import (
    in_running_order,
    precision_of,
    rounds_to_half,
    widened,
)
from dyninfer.exporters.cascade.export import (
    CascadeOptions,
    OnnxOptions,
    export_cascade,
    export_onnx,
)
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import DetectorSource
from dyninfer.exporters.cascade.original import OriginalDetector, sample_photos
from dyninfer.exporters.cascade.plan import plan_detector
from dyninfer.exporters.cascade.trial import same_rows
from dyninfer.exporters.families import source_stages
from dyninfer.exporters.parity import Parity
from dyninfer.exporters.verify import verify
from tests import support
from tests.exporters.cascade import detectors
from tests.exporters.cascade.detectors import HEIGHT, WIDTH
from tests.exporters.cascade.half import halve

MADE = {
    "yolov8": lambda: detectors.yolov8(80),
    "nanodet": lambda: detectors.nanodet(80, 8),
    "end2end": lambda: detectors.end2end_rows(80),
}


def export(*files: Path) -> tuple[Path, Manifest, Sequence[str]]:
    """A bundle of detectors, made in this process, which saves a second; with its notes."""
    target, sources = files[0].with_suffix(".dyn"), [*map(DetectorSource, files)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "dyninfer.exporters.cascade.export.run_limited",
            lambda _module, work, request, _memory, _files, progress: work(request, progress),
        )
        if len(files) > 1:
            exported = export_cascade(sources, target, CascadeOptions(overwrite=True))
        else:
            exported = export_onnx(sources[0], target, OnnxOptions(overwrite=True))
    return target, exported.manifest, exported.notes


def compared(target: Path, *files: Path) -> Parity:
    with dyninfer.load(target) as detector:
        stages = source_stages(detector.bundle, files)
        return verify(detector, stages, sample_photos(), 2)


def found(target: Path) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(5).random((2, 3, HEIGHT, WIDTH), np.float32)
    with dyninfer.load(target) as detector:
        (stage,) = detector.manifest.stages
        made = detector.run_stage(stage, {"images": image})
    return made["boxes_xyxy"], made["class_scores"]


@pytest.mark.parametrize("io", [False, True], ids=["float32 outside", "float16 outside"])
@pytest.mark.parametrize("name", MADE)
def test_float16_files_run_and_agree(tmp_path, name, io) -> None:
    exact, _, _ = export(MADE[name]().save(tmp_path / "exact.onnx"))
    file = halve(MADE[name]().save(tmp_path / "half.onnx"), io=io)
    assert in_running_order(onnx.load(str(file)).graph) is io
    target, manifest, _ = export(file)
    assert manifest.stages["detector"].precision is Precision.FP16
    parity = compared(target, file)
    assert parity.passed, parity.checks
    (boxes, scores), (expected_boxes, expected_scores) = found(target), found(exact)
    if name != "end2end":  # whose rows are sorted, and ties are many in float16
        assert np.abs(boxes - expected_boxes).max() < (0.15 if name == "nanodet" else 0.05)
        assert np.abs(scores - expected_scores).max() < 2e-3


def test_a_wrong_stage_of_a_float16_file_is_found(tmp_path) -> None:
    file = halve(detectors.yolov8(80).save(tmp_path / "half.onnx"), io=True)
    target, _, _ = export(file)
    path = target / "onnx" / "detector.onnx"
    model = onnx.load(str(path))
    (half,) = (
        tensor
        for tensor in model.graph.initializer
        if tensor.name.startswith("decode/") and tensor.data_type == TensorProto.FLOAT
    )
    half.CopyFrom(numpy_helper.from_array(np.array(0.51, np.float32), half.name))
    path.write_bytes(model.SerializeToString())
    support.reseal(target, lambda m: m["stages"]["detector"].update(sha256=file_sha256(path)))
    checks = compared(target, file).checks
    failed = {(check.where, check.tensor) for check in checks if not check.passed}
    assert failed == {("detector", "boxes_xyxy"), ("exit 0", "boxes_xyxy")}
    rounding = {check.tensor: check.rounding for check in checks}
    assert 0.01 < rounding["boxes_xyxy"] < 0.07  # float16 tells 1/32 pixel apart from 32 on


def test_a_cascade_of_float16_and_float32_measures_rounding_where_there_is_any(tmp_path) -> None:
    half = halve(detectors.yolov8(80).save(tmp_path / "half.onnx"), io=True)
    exact = detectors.yolov8(80, seed=1).save(tmp_path / "exact.onnx")
    target, manifest, _ = export(half, exact)
    assert [s.precision for s in manifest.stages.values()] == [Precision.FP16, Precision.FP32]
    parity = compared(target, half, exact)
    assert parity.passed, parity.checks
    rounding = {check.where: check.rounding for check in parity.checks}
    assert rounding["first"] > 1e-4
    assert rounding["second"] == 0


def test_nodes_in_any_order_are_read(tmp_path) -> None:
    path = detectors.nanodet(80, 8).save(tmp_path / "some.onnx")
    model = onnx.load(str(path))
    nodes = list(model.graph.node)
    np.random.default_rng(0).shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (tmp_path / "mixed.onnx").write_bytes(model.SerializeToString())
    image = np.random.default_rng(1).random((1, 3, HEIGHT, WIDTH), np.float32)
    layout = plan_detector("", DetectorSource(path), read_onnx(path)).plan.layout
    mixed = OriginalDetector(read_onnx(tmp_path / "mixed.onnx"), layout).run(image)
    for name, array in OriginalDetector(read_onnx(path), layout).run(image).items():
        np.testing.assert_array_equal(mixed[name], array)
    nodes[0].input[0] = nodes[0].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (tmp_path / "circle.onnx").write_bytes(model.SerializeToString())
    with support.refuses(CheckpointError, "circle.onnx", "goes in circles"):
        read_onnx(tmp_path / "circle.onnx")


@pytest.mark.parametrize("through", [(), ("Identity",), ("Transpose", "Identity")])
@pytest.mark.parametrize("cast", [False, True])
def test_float16_that_is_cast_to_float32_is_only_stored_so(through, cast) -> None:
    nodes = [helper.make_node("Cast", ["w"], ["w0"], to=TensorProto.FLOAT)] if cast else []
    names = ["w0" if cast else "w", *(f"t{number}" for number in range(len(through)))]
    for operator, source, target in zip(through, names, names[1:], strict=False):
        nodes.append(helper.make_node(operator, [source], [target]))
    nodes.append(helper.make_node("MatMul", ["x", names[-1]], ["y"]))
    weight = numpy_helper.from_array(np.zeros((4, 4), np.float16), "w")
    graph = helper.make_graph(nodes, "g", [], [], [weight])
    assert precision_of(graph) is (Precision.FP32 if cast else Precision.FP16)


def test_nothing_but_float16_is_widened() -> None:
    kinds = [kind for kind in TensorProto.DataType.values() if kind != TensorProto.UNDEFINED]
    nodes, outputs = [], []
    for kind in kinds:
        nodes.append(helper.make_node("Cast", ["x"], [f"y{kind}"], to=kind))
        outputs.append(helper.make_tensor_value_info(f"y{kind}", kind, [1]))
    weights = [
        numpy_helper.from_array(np.arange(3).astype(kind), kind)
        for kind in ("float16", "float32", "float64", "int8", "int64", "uint8", "bool")
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1])
    wide = widened(helper.make_model(helper.make_graph(nodes, "g", [x], outputs, weights))).graph
    single, half = TensorProto.FLOAT, TensorProto.FLOAT16
    expected = [single if kind == half else kind for kind in kinds]
    assert wide.input[0].type.tensor_type.elem_type == single
    assert [node.attribute[0].i for node in wide.node] == expected
    assert [value.type.tensor_type.elem_type for value in wide.output] == expected
    stored = [tensor.data_type for tensor in weights]
    assert [tensor.data_type for tensor in wide.initializer] == [single, *stored[1:]]
    np.testing.assert_array_equal(numpy_helper.to_array(wide.initializer[0]), [0, 1, 2])


class Noise(quantization.CalibrationDataReader):
    """Four images of noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._images = iter([rng.random((1, 3, HEIGHT, WIDTH), np.float32) for _ in range(4)])

    def get_next(self) -> Any:
        return next(({"pictures": image} for image in self._images), None)


@pytest.fixture(params=[quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator], ids=str)
def quantised(request, tmp_path) -> Path:
    path = detectors.yolov8(80).save(tmp_path / "exact.onnx")
    target = tmp_path / "eight.onnx"
    quantization.quantize_static(
        str(path), str(target), Noise(), quant_format=request.param, per_channel=True
    )
    return target


def test_quantised_files_run_and_agree(quantised, tmp_path) -> None:
    _, exact, _ = export(tmp_path / "exact.onnx")
    target, manifest, _ = export(quantised)
    stage, own = manifest.stages["detector"], exact.stages["detector"]
    assert (stage.precision, stage.rows_per_run, stage.macs) == (Precision.INT8, None, own.macs)
    assert stage.parameters == pytest.approx(own.parameters, rel=0.02)  # and scales
    parity = compared(target, quantised)
    assert parity.passed, parity.checks


def test_what_quantises_a_batch_as_a_whole_takes_one_image_at_a_time(tmp_path) -> None:
    path = detectors.yolov8(80).save(tmp_path / "exact.onnx")
    eight = tmp_path / "eight.onnx"
    # not every version of ONNX Runtime convolves with signed weights
    quantization.quantize_dynamic(path, eight, weight_type=quantization.QuantType.QUInt8)
    target, manifest, notes = export(eight)
    stage = manifest.stages["detector"]
    assert (stage.precision, stage.rows_per_run) == (Precision.INT8, 1)
    assert any("quantises a batch as a whole" in note for note in notes)
    assert compared(target, eight).passed


def test_rows_of_a_list_may_change_places_but_not_be_absent() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = rng.random((2, 9, 4)) * 100, rng.random((2, 9, 3))
    other = rng.permutation(9)
    assert same_rows([boxes[:, other], scores[:, other]], [boxes, scores], 1e-3)
    moved = boxes[:, other].copy()
    moved[1, 4] += 20
    assert not same_rows([moved, scores[:, other]], [boxes, scores], 1e-3)
    faint = scores * 0.01  # nobody looks at them
    assert same_rows([moved, faint[:, other]], [boxes, faint], 1e-3)
    assert not same_rows([np.zeros((1, 600, 4))] * 2, [np.zeros((1, 600, 4))] * 2, 1e-3)


def test_nodes_of_a_damaged_file_may_lack_anything() -> None:
    nodes = [
        helper.make_node("Cast", ["a"], ["b"]),
        helper.make_node("Cast", ["a"], [], to=TensorProto.FLOAT16),
        helper.make_node("Constant", [], ["c"]),
        helper.make_node("Identity", [], ["d"]),
        helper.make_node("Conv", ["a"], ["e"]),
        helper.make_node("MatMul", [], []),
    ]
    graph = helper.make_graph(nodes, "damaged", [], [])
    assert precision_of(graph) is Precision.FP32
    assert rounds_to_half(graph)
