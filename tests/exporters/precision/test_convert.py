from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dyninfer
from dyninfer.builds.spec import parse_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Precision
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.engines.trt.file_types import node_types
from dyninfer.errors import BundleError, InputError
from dyninfer.exporters.precision.convert import (
    ConvertedStage,
    convert_bundle_stages,
    range_pictures,
    stage_feed,
)
from dyninfer.exporters.precision.measure import measure_precision
from dyninfer.exporters.precision.settings import Int8Settings
from dyninfer.images.spec import ImageSpec
from tests import support

PICTURES = support.random_pictures(4)
NO_SEARCH = Int8Settings(max_float_share=0)


@pytest.fixture(scope="module")
def bundle(small_bundle) -> Bundle:
    return Bundle.open(small_bundle)


@pytest.fixture(scope="module")
def converted(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    plan = parse_precision("first=int8,second=fp16", bundle.manifest)
    return convert_bundle_stages(bundle, plan, PICTURES, folder, NO_SEARCH)


@pytest.fixture(scope="module")
def mixed(bundle, converted, tmp_path_factory) -> Path:
    """A bundle whose stages are the converted ones."""
    path = shutil.copytree(bundle.path, tmp_path_factory.mktemp("mixed") / "mixed.dyn")
    for name, entry in bundle.manifest.stages.items():
        shutil.copyfile(converted[name].path, path / entry.file)

    def change(manifest) -> None:
        for name, stage in converted.items():
            manifest["stages"][name] |= {"sha256": stage.sha256, "precision": stage.precision.value}

    support.reseal(path, change)
    return path


def test_every_stage_of_the_plan_has_a_file(bundle, converted) -> None:
    assert [stage.precision.value for stage in converted.values()] == [
        "int8",
        "fp32",
        "fp32",
        "fp16",
    ]
    for name, stage in converted.items():
        assert file_sha256(stage.path) == stage.sha256
        own = bundle.stage_path(name)
        assert (stage.path == own) == (stage.precision is Precision.FP32)
        onnx.checker.check_model(onnx.load(stage.path), full_check=True)


def test_stages_are_calibrated_on_what_the_stages_before_them_make(bundle, tmp_path) -> None:
    plan = {"head": Precision.INT8}
    steps = []
    settings = Int8Settings(max_float_share=0, progress=lambda *step: steps.append(step))
    found = convert_bundle_stages(bundle, plan, PICTURES, tmp_path, settings)
    assert list(found) == ["head"]
    assert {what for what, _, _ in steps} == {"calibrating head"}
    assert {(done, total) for _, done, total in steps} == {(n, 4) for n in range(1, 5)}
    report = measure_precision(bundle, found, PICTURES)
    assert max(error.deviation for error in report.tensors) < 0.2


def test_a_bundle_of_converted_stages_runs(bundle, mixed) -> None:
    with dyninfer.load(mixed) as changed, dyninfer.load(bundle.path) as source:
        stages = changed.manifest.stages
        assert [s.precision.value for s in stages.values()] == ["int8", "fp32", "fp32", "fp16"]
        for policy in (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()):
            changed.policy = source.policy = policy
            inputs = {"images": support.random_images(3, 64, 96)}
            for found, expected in zip(changed.infer(inputs), source.infer(inputs), strict=True):
                error = found.outputs["class_scores"] - expected.outputs["class_scores"]
                assert 0 < np.abs(error).max() < 0.1


def test_the_report_tells_errors_decisions_and_precision(bundle, converted) -> None:
    report = measure_precision(bundle, converted, PICTURES)
    assert report.pictures == 4
    stages = {error.stage for error in report.tensors}
    assert stages == {"first", "second"}
    assert all(0 < error.mean_rel <= error.deviation * 3 for error in report.tensors)
    assert [error.exit_index for error in report.exits] == [0, 1]
    assert report.exits[0].ap_fp32 is None
    for end in report.exits:  # random weights are sure of nothing
        assert (end.boxes, end.score_error_mean, end.box_error_max_px) == (0, None, None)
    assert report.flips["router"].decisions == 16
    payload = report.to_dict()
    assert json.loads(json.dumps(payload)) == payload
    assert payload["precision"]["second"] == "fp16"


def test_errors_at_the_ends_are_those_of_the_boxes_that_count(bundle, converted, tmp_path) -> None:
    path = shutil.copytree(bundle.path, tmp_path / "unsure.dyn")
    support.reseal(path, lambda m: m.update(postprocess={"confidence": 0.0}))
    report = measure_precision(Bundle.open(path), converted, PICTURES[:2])
    for end in report.exits:
        assert end.boxes > 0
        assert 0 < end.score_error_mean < end.score_error_max < 0.1
        assert 0 < end.box_error_mean_px < end.box_error_max_px < 64
        assert 0 <= end.disagreement <= 1


def test_an_unchanged_bundle_has_no_errors(bundle) -> None:
    report = measure_precision(bundle, {}, PICTURES[:2])
    assert report.tensors == ()
    assert report.flips["router"].flips == 0
    assert {error.disagreement for error in report.exits} == {0.0}


def test_a_stage_without_layers_keeps_its_own_file(tmp_path) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    folder = tmp_path / "converted"
    folder.mkdir()
    for precision in (Precision.INT8, Precision.FP16):
        plan = dict.fromkeys(bundle.manifest.stages, precision)
        found = convert_bundle_stages(bundle, plan, PICTURES, folder)
        assert {stage.precision for stage in found.values()} == {Precision.FP32}
    assert list(folder.iterdir()) == []


def test_int8_without_pictures_is_refused_and_fp16_is_not(bundle, tmp_path) -> None:
    with support.refuses(InputError, "'first'", "calibration pictures"):
        convert_bundle_stages(bundle, {"first": Precision.INT8}, [], tmp_path)
    found = convert_bundle_stages(bundle, {"first": Precision.FP16}, [], tmp_path)
    assert found["first"].precision is Precision.FP16


def test_fp16_without_pictures_keeps_what_is_beyond_its_range_in_float32(bundle, tmp_path) -> None:
    path = shutil.copytree(bundle.path, tmp_path / "large.dyn")
    file = bundle.manifest.stages["first"].file
    model = onnx.load(path / file)
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == last.input[1]]
    own = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(own / np.abs(own).max() * 6e4, weight.name))
    onnx.save(model, path / file)

    def change(manifest) -> None:
        manifest["stages"]["first"]["sha256"] = file_sha256(path / file)

    support.reseal(path, change)
    plan = parse_precision("fp32,first=fp16", bundle.manifest)
    for number, (of, kept) in enumerate([(bundle, set()), (Bundle.open(path), {last.name})]):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = convert_bundle_stages(of, plan, (), folder)["first"]
        types = node_types(made.path)
        convolutions = [n.name for n in model.graph.node if n.op_type == "Conv"]
        single = {name for name in convolutions if types[name] == onnx.TensorProto.FLOAT}
        assert single == kept


def test_a_converted_stage_stays_and_cannot_become_another(mixed, tmp_path) -> None:
    variant = Bundle.open(mixed)
    same = convert_bundle_stages(variant, {"first": Precision.INT8}, [], tmp_path)
    assert same["first"].path == variant.stage_path("first")
    with support.refuses(BundleError, "'first'", "int8 already", "fp16"):
        convert_bundle_stages(variant, {"first": Precision.FP16}, [], tmp_path)


@pytest.mark.parametrize("truths", [None, []])
def test_pictures_and_truths_must_go_together(bundle, truths) -> None:
    pictures = [] if truths is None else PICTURES
    with pytest.raises(InputError, match="expected at least one picture"):
        measure_precision(bundle, {}, pictures, truths)


def changed_file(folder, name, model) -> ConvertedStage:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return ConvertedStage(Precision.INT8, path, file_sha256(path))


def test_a_select_bundle_of_classifiers_is_measured_by_branch(tmp_path) -> None:
    bundle = Bundle.open(support.write_select_classifiers(tmp_path / "select.dyn"))
    model = support.channel_chooser("images", 8)
    (order,) = (t for t in model.graph.initializer if t.name == "channels")
    order.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 0]), order.name))
    converted = {
        "chooser": changed_file(tmp_path, "chooser", model),
        "body_1": changed_file(tmp_path, "b", support.classifying_body("images", 8, (-9, -9, -9))),
    }
    report = measure_precision(bundle, converted, PICTURES)
    assert [(error.stage, error.tensor) for error in report.tensors] == [
        ("chooser", "choice_scores"),
        ("body_1", "logits"),
    ]
    assert (report.flips["chooser"].decisions, report.flips["chooser"].flips) == (4, 4)
    same, other = report.exits
    assert (same.score_error_max, same.disagreement) == (0.0, 0.0)
    assert other.disagreement == 1.0
    assert other.score_error_max > 0
    assert (other.boxes, other.box_error_mean_px, other.ap_fp32) == (0, None, None)


def test_a_cascade_of_three_exits_is_measured_at_every_exit_and_router(tmp_path) -> None:
    bundle = Bundle.open(support.write_three_exits(tmp_path / "three.dyn"))
    converted = {
        "head_2": changed_file(tmp_path, "h", support.detecting_head("value_2", 1003)),
        "router_2": changed_file(tmp_path, "r", support.channel_router("value_2", 2)),
    }
    report = measure_precision(bundle, converted, PICTURES)
    assert [error.box_error_max_px for error in report.exits] == [0, pytest.approx(3), 0]
    assert report.flips["router_1"].flips == 0
    assert report.flips["router_2"].flips > 0
    assert report.precision["head_2"] is Precision.INT8
    one = measure_precision(bundle, converted, PICTURES, only={"router_2"})
    assert {error.stage for error in one.tensors} == {"router_2"}
    assert [error.box_error_max_px for error in one.exits] == [0, 0, 0]
    assert one.flips == report.flips
    assert one.precision["head_2"] is Precision.FP32


def test_a_head_of_a_later_branch_is_fed_by_its_own_body(tmp_path) -> None:
    bundle = Bundle.open(support.write_select_detectors(tmp_path / "select.dyn"))
    found = list(stage_feed(PlainStages(bundle), "head_1", PICTURES[:2])())
    with dyninfer.load(bundle.path) as detector:
        made = detector.trace(detector.prepare(PICTURES[:2]), keep=["body_1"]).stages["body_1"]
    np.testing.assert_allclose(np.concatenate([f["value"] for f in found]), made["value"])


def test_without_pictures_ranges_are_those_of_black_white_and_noise_fine_and_coarse() -> None:
    sizes = {"images": ImageSpec(height=8, width=8), "large": ImageSpec(height=80, width=100)}
    sizes["wide"] = ImageSpec(height=20, width=300)
    black, white, fine, coarse = range_pictures(SimpleNamespace(image_inputs=sizes))
    for picture in (black, white, fine, coarse):
        assert (picture.shape, picture.dtype) == ((80, 100, 3), np.uint8)
    assert (black == 0).all()
    assert (white == 255).all()
    assert {*np.unique(fine)} == {*range(256)}
    blocks = [coarse[y : y + 32, x : x + 32] for y in (0, 32, 64) for x in (0, 32, 64, 96)]
    assert all((block == block[0, 0]).all() for block in blocks)
    assert len({tuple(block[0, 0]) for block in blocks}) == 12
    assert coarse.max() > 200
    assert coarse.min() < 55
