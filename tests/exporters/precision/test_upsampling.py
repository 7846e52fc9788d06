from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from dyninfer.exporters.graphs import closed, editable
from dyninfer.exporters.precision import upsampling
from dyninfer.exporters.precision.graph import opened
from dyninfer.exporters.precision.int8 import observe_stage, prepare_int8, to_int8
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from dyninfer.exporters.precision.upsampling import upsample_by_copies
from tests.exporters.precision.helpers import SIDE, conv, feed_of, images, run, weights
from tests.support import tiny_model

NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


@pytest.fixture(autouse=True)
def _small_maps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "LEAST_VALUES", 1)


def float_model(scales: tuple[float, ...] = (1, 1, 2, 2), **modes: str) -> onnx.ModelProto:
    """images (N, 3, 8, 8), a layer, a resize as ``up``, and another layer."""
    resize = helper.make_node("Resize", ["c1", "", "scales"], ["up"], "up", **(NEAREST | modes))
    sides = [int(SIDE * scale) for scale in scales[2:]]
    return tiny_model(
        {"images": ["batch", 3, SIDE, SIDE]},
        {"deep": ["batch", 4, *sides]},
        [conv("images", "w1", "c1"), resize, conv("up", "w2", "deep")],
        {
            "w1": weights(5, 3, 3, 3),
            "w2": weights(4, 5, 3, 3, seed=1),
            "scales": np.array(scales, np.float32),
        },
    )


def in_8_bits(source: onnx.ModelProto, **changed: Any) -> tuple[ir.Model, ir.Model]:
    """A model with 8-bit ends around ``up``, and the model it was made of."""
    prepared = opened(source)
    numbers: dict[str, Any] = {"scale": np.float32(0.02), "zero": np.uint8(100)}
    after = numbers | changed
    model = onnx.ModelProto()
    model.CopyFrom(closed(prepared))
    graph = model.graph
    (resize,) = (node for node in graph.node if node.op_type == "Resize")
    place = list(graph.node).index(resize)
    resize.input[0], resize.output[0] = "small", "large"
    into, out = ["scale", "zero"], ["scale_after", "zero_after"]
    graph.node.insert(place + 1, helper.make_node("DequantizeLinear", ["large_8", *out], ["up"]))
    graph.node.insert(place + 1, helper.make_node("QuantizeLinear", ["large", *out], ["large_8"]))
    graph.node.insert(place, helper.make_node("DequantizeLinear", ["small_8", *into], ["small"]))
    graph.node.insert(place, helper.make_node("QuantizeLinear", ["c1", *into], ["small_8"]))
    for name, array in {**numbers, **{f"{n}_after": a for n, a in after.items()}}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return editable(model), prepared


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 1), (1, 1)])
def test_pixels_are_repeated_as_they_were_resized(factors: tuple[int, int]) -> None:
    source = float_model((1, 1, *factors))
    model, prepared = in_8_bits(source)
    before = closed(model)
    upsample_by_copies(model.graph, prepared.graph)
    after = closed(model)
    onnx.checker.check_model(after, full_check=True)
    assert "Resize" not in operators(model)
    assert operators(model).count("Expand") == 1
    for batch in (1, 3):
        given = {"images": np.concatenate([each["images"] for each in images(batch)])}
        found, expected = run(after, given)["deep"], run(before, given)["deep"]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("scales", "modes"),
    [
        ((1, 1, 2, 2), {"mode": "linear", "nearest_mode": "round_prefer_floor"}),
        ((1, 1, 2, 2), {"coordinate_transformation_mode": "align_corners"}),
        ((1, 1, 2, 2), {"nearest_mode": "ceil"}),
        ((1, 1, 1.5, 2), {}),
        ((1, 1, 0.5, 0.5), {}),
    ],
)
def test_what_does_more_than_repeat_stays(scales, modes) -> None:
    model, prepared = in_8_bits(float_model(scales, **modes))
    before = operators(model)
    upsample_by_copies(model.graph, prepared.graph)
    assert operators(model) == before


@pytest.mark.parametrize(
    "changed", [{"scale": np.float32(0.03)}, {"zero": np.uint8(99)}, {"zero": np.int8(100)}]
)
def test_another_scale_behind_it_rounds_anew(changed) -> None:
    model, prepared = in_8_bits(float_model(), **changed)
    before = operators(model)
    upsample_by_copies(model.graph, prepared.graph)
    assert operators(model) == before


def test_a_result_of_few_values_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    values = 5 * (2 * SIDE) ** 2
    for least, stays in ((values, False), (values + 1, True)):
        monkeypatch.setattr(upsampling, "LEAST_VALUES", least)
        model, prepared = in_8_bits(float_model())
        upsample_by_copies(model.graph, prepared.graph)
        assert ("Resize" in operators(model)) is stays


def test_floats_and_what_others_read_stay() -> None:
    plain = opened(float_model())
    upsample_by_copies(plain.graph, opened(float_model()).graph)
    assert "Resize" in operators(plain)
    model, prepared = in_8_bits(float_model())
    (resize,) = (node for node in model.graph if node.op_type == "Resize")
    model.graph.outputs.append(resize.outputs[0])
    upsample_by_copies(model.graph, prepared.graph)
    assert "Resize" in operators(model)


@pytest.mark.parametrize("target", [Int8Target.CPU, Int8Target.TENSORRT])
def test_conversions_for_a_processor_have_it(target: Int8Target) -> None:
    settings = Int8Settings(target=target)
    prepared = prepare_int8(float_model())
    seen = observe_stage(prepared, feed_of(images()), settings)
    converted = to_int8(prepared, seen, settings)
    found = {node.op_type for node in converted.graph.node}
    assert ("Resize" in found) is (target is Int8Target.TENSORRT)
    assert ("Expand" in found) is (target is Int8Target.CPU)
    given = images(1)[0]
    found_map, expected = run(converted, given)["deep"], run(float_model(), given)["deep"]
    assert np.abs(found_map - expected).max() < 0.05 * np.abs(expected).max()
