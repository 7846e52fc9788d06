"""Exported bundles against the published code's outputs and against the source model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import dyninfer
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model
from dyninfer.exporters.dynamicdet.topology import Part
from tests import support


def assert_route_matches(
    outputs: list[dyninfer.RawOutput], boxes: np.ndarray, scores: np.ndarray, exit_index: int
) -> None:
    found_boxes = support.stacked(outputs, "boxes_xyxy")
    found_scores = support.stacked(outputs, "class_scores")
    np.testing.assert_allclose(found_boxes, boxes, rtol=0, atol=support.BOX_TOLERANCE)
    np.testing.assert_allclose(found_scores, scores, rtol=0, atol=support.EASINESS_TOLERANCE)
    assert [output.exit_index for output in outputs] == [exit_index] * len(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("variant", support.VARIANTS)
def test_both_routes_and_mixed_thresholds_equal_the_published_code(exported, variant) -> None:
    vector = support.vector_of(variant)
    scores = vector["score"][:, 0]
    with dyninfer.load(exported(variant)) as detector:
        for index, (route, policy) in enumerate(
            (("easy", dyninfer.AlwaysEasy()), ("hard", dyninfer.AlwaysHard()))
        ):
            detector.policy = policy
            outputs = detector.infer({"images": vector["images"]})
            assert_route_matches(outputs, *support.expected_outputs(vector[route]), index)
            easiness = [output.easiness for output in outputs]
            np.testing.assert_allclose(easiness, scores, rtol=0, atol=support.EASINESS_TOLERANCE)
        detector.policy = dyninfer.Threshold(float(scores.mean()))
        mixed = detector.infer({"images": vector["images"]})
        assert [output.exit_index for output in mixed] == [int(s < scores.mean()) for s in scores]
        for row, output in enumerate(mixed):
            reference = vector[("easy", "hard")[output.exit_index]][row]
            expected = support.expected_outputs(reference)
            assert_route_matches([output], *(e[None] for e in expected), output.exit_index)


@pytest.mark.slow
@pytest.mark.parametrize("variant", support.VARIANTS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.36, 0.4005, 0.44, 1.0, 1.01])
def test_a_threshold_routes_as_the_published_comparison_does(exported, variant, threshold) -> None:
    vector = support.vector_of(variant)
    with dyninfer.load(exported(variant)) as detector:
        detector.policy = dyninfer.Threshold(threshold)
        outputs = detector.infer({"images": vector["images"]})
    assert [o.exit_index == 1 for o in outputs] == list(vector["score"][:, 0] < threshold)


@pytest.mark.slow
@pytest.mark.parametrize("variant", support.VARIANTS)
@pytest.mark.parametrize("batch", [1, 3, 9])
def test_any_batch_size_runs_also_above_the_largest_batch(exported, variant, batch) -> None:
    vector = support.vector_of(variant)
    rows = np.arange(batch) % 2
    with dyninfer.load(exported(variant), max_batch=4) as detector:
        detector.policy = dyninfer.AlwaysHard()
        outputs = detector.infer({"images": vector["images"][rows]})
    boxes, scores = support.expected_outputs(vector["hard"][rows])
    assert_route_matches(outputs, boxes, scores, 1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", support.VARIANTS)
def test_stage_files_are_opset_17_with_a_named_batch_axis_and_no_notes(exported, variant) -> None:
    for path in (exported(variant) / "onnx").iterdir():
        model = onnx.load(path)
        assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
        graph = model.graph
        for item in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
            assert not item.doc_string
            assert not item.metadata_props
        for value in (*graph.input, *graph.output):
            assert not value.doc_string
            assert not value.metadata_props
            first, *others = value.type.tensor_type.shape.dim
            assert first.dim_param == "batch"
            assert all(axis.dim_value for axis in others)
        assert str(support.ROOT).encode() not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_stage_files_run_in_plain_onnx_runtime(exported) -> None:
    vector = support.vector_of("dy-yolov7")
    folder = exported("dy-yolov7") / "onnx"
    tensors = {"images": vector["images"]}
    for name in ("first", "router", "head", "second"):
        session = ort.InferenceSession(folder / f"{name}.onnx")
        names = [value.name for value in session.get_outputs()]
        values = session.run(None, {i.name: tensors[i.name] for i in session.get_inputs()})
        tensors |= dict(zip(names, values, strict=True))
    np.testing.assert_allclose(tensors["easiness"], vector["score"][:, 0], atol=1e-5)
    boxes, scores = support.expected_outputs(vector["hard"])
    np.testing.assert_allclose(tensors["boxes_xyxy"], boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(tensors["class_scores"], scores, rtol=0, atol=1e-5)


def source_outputs(model: DynamicDetector, images: np.ndarray) -> tuple[np.ndarray, list]:
    """Easiness, and (boxes, scores) of either route, by PyTorch and the definition."""
    features = model.first(torch.from_numpy(images))
    routes = [
        support.decoded_by_definition(model, raw, model.detect(part))
        for raw, part in (
            (model.head(features), Part.HEAD),
            (model.second(features), Part.HEAD2),
        )
    ]
    easiness = model.easiness(features)[:, 0].numpy() if model.router else np.empty(0)
    return easiness, routes


def assert_bundle_equals_model(bundle: Path, model: DynamicDetector, images: np.ndarray) -> None:
    easiness, routes = source_outputs(model, images)
    with dyninfer.load(bundle) as detector:
        for index, policy in enumerate((dyninfer.AlwaysEasy(), dyninfer.AlwaysHard())):
            detector.policy = policy
            outputs = detector.infer({"images": images})
            assert_route_matches(outputs, *routes[index], index)
            if model.router:
                found = [output.easiness for output in outputs]
                np.testing.assert_allclose(found, easiness, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_single_class_a_name_and_a_licence(tmp_path) -> None:
    config = tmp_path / "one.yaml"
    config.write_text(support.SMALL_YAML.replace("nc: 2", "nc: 1"), encoding="utf-8")
    model = support.small_detector(read_topology(config), classes=1)
    checkpoint = support.save_checkpoint(model, tmp_path / "one.pt")
    options = DynamicDetOptions(
        image_size=(96, 160), config=config, name="digits", licence="CC0-1.0"
    )
    manifest = export_dynamicdet(checkpoint, tmp_path / "one.dyn", options)

    assert manifest.class_names == ("class_0",)
    assert (manifest.name, manifest.source.licence) == ("digits", "CC0-1.0")
    images = support.random_images(3, 96, 160)
    source = load_model(checkpoint, config)
    assert_bundle_equals_model(tmp_path / "one.dyn", source, images)
    objectness = source_outputs(source, images)[1][0][1]
    assert objectness.shape[-1] == 1


@pytest.mark.slow
def test_a_topology_of_the_users_own(small_bundle, small_checkpoint, small_yaml) -> None:
    model = load_model(small_checkpoint, small_yaml)
    assert model.plan.strides == (8, 16)
    assert model.plan.splits(model.topology.parts[Part.SECOND][2]) == (8, 16)
    assert_bundle_equals_model(small_bundle, model, support.random_images(3, 64, 96))
    manifest = dyninfer.Bundle.open(small_bundle).manifest
    assert manifest.source.config_file_name == small_yaml.name
    assert manifest.class_names == ("class_0", "class_1")


@pytest.mark.slow
def test_a_step_1_checkpoint_exports_and_refuses_what_needs_a_router(
    small_model, small_yaml, tmp_path
) -> None:
    checkpoint = support.save_checkpoint(small_model, tmp_path / "step1.pt", without="router.")
    options = DynamicDetOptions(image_size=(32, 32), config=small_yaml)
    manifest = export_dynamicdet(checkpoint, tmp_path / "step1.dyn", options)
    assert sorted(manifest.stages) == ["first", "head", "second"]
    assert not manifest.routed
    images = support.random_images(2, 32, 32)
    assert_bundle_equals_model(tmp_path / "step1.dyn", load_model(checkpoint, small_yaml), images)
    with dyninfer.load(tmp_path / "step1.dyn") as detector:
        assert detector.policy == dyninfer.AlwaysHard()
        with support.refuses(dyninfer.PolicyError, "router", "AlwaysHard"):
            detector.policy = dyninfer.Threshold(0.5)
        assert detector.policy == dyninfer.AlwaysHard()
        assert [output.exit_index for output in detector.infer({"images": images})] == [1, 1]
        detector.policy = dyninfer.AlwaysEasy()
        outputs = detector.infer({"images": images})
        assert [(output.exit_index, output.easiness) for output in outputs] == [(0, None)] * 2
