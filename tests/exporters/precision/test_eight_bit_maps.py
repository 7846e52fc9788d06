"""Stages at whose borders maps are in 8 bits."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from dyninfer.bundle.manifest import EightBits, QuantisedSpec
from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.eight_bit_maps import hand_on, maps_in_8_bits, restore, take
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from tests.exporters.precision.helpers import conv, feed_of, run, weights
from tests.exporters.precision.test_int8 import quantised
from tests.support import tiny_model

SHAPE = (2, 3, 4, 5)
AXES = ["batch", 3, 4, 5]
STORED = {"scale": np.array(0.02, np.float32), "zero": np.array(7, np.uint8)}
BITS = list(STORED)


def node(kind: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def maker() -> onnx.ModelProto:
    return tiny_model(
        {"images": AXES}, {"map": AXES}, [conv("images", "w", "map")], {"w": weights(3, 3, 3, 3)}
    )


def reader() -> onnx.ModelProto:
    """Rounds a map for a layer, twice, and once for what moves its 8 bits."""
    nodes = [node("QuantizeLinear", ["map", *BITS], "bits")]
    for name in ("a", "b"):
        nodes.append(node("DequantizeLinear", ["bits", *BITS], f"{name}_float"))
        nodes.append(conv(f"{name}_float", "w", name))
    nodes.append(node("QuantizeLinear", ["map", *BITS], "again"))
    nodes.append(node("Transpose", ["again"], "pixels", perm=[0, 2, 3, 1]))
    nodes.append(node("DequantizeLinear", ["pixels", *BITS], "moved"))
    outputs = {"a": AXES, "b": AXES, "moved": ["batch", 4, 5, 3]}
    return tiny_model({"map": AXES}, outputs, nodes, {"w": weights(3, 3, 3, 3)} | STORED)


def opened(model: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def checked(model: ir.Model) -> onnx.ModelProto:
    model.graph.sort()
    proto = closed(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def border(model: ir.Model) -> list[tuple[str | None, ir.DataType | None, str]]:
    values = (*model.graph.inputs, *model.graph.outputs)
    return [(value.name, value.dtype, str(value.shape)) for value in values]


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_stage_takes_and_makes_8_bits_and_floats_again(channels_last) -> None:
    makes, reads = opened(maker()), opened(reader())
    floats, stages = [border(makes), border(reads)], {"makes": makes, "reads": reads}
    found = maps_in_8_bits([("makes", "map")], stages)
    assert found == {"map": EightBits(scale=STORED["scale"], zero_point=7, channels_last=True)}
    bits = found["map"].model_copy(update={"channels_last": channels_last})
    hand_on(makes.graph, makes.graph.outputs[0], bits)
    take(reads.graph, reads.graph.inputs[0], bits)
    inputs = {"images": np.random.default_rng(0).random(SHAPE, np.float32)}
    exact = run(maker(), inputs)["map"]
    axes = [2, 4, 5, 3] if channels_last else SHAPE
    spec = QuantisedSpec(name="map", dtype="uint8", shape=tuple(axes), bits=bits)
    travels = run(checked(makes), inputs)["map"]
    assert travels.shape == tuple(axes)
    assert np.array_equal(travels, spec.taken(exact))
    assert np.ptp(travels) > 20
    expected = run(reader(), {"map": exact})
    for name, array in run(checked(reads), {"map": travels}).items():
        assert np.array_equal(array, expected[name])
    for stage in (makes, reads):
        assert restore(stage.graph, {"map": bits})
        assert not restore(stage.graph, {"other": bits})
    assert [border(makes), border(reads)] == floats
    assert np.array_equal(run(checked(makes), inputs)["map"], exact)
    for name, array in run(checked(reads), {"map": exact}).items():
        assert np.array_equal(array, expected[name])


def test_a_map_that_two_readers_round_in_different_ways_stays_as_it_is() -> None:
    other = reader()
    (scale,) = (tensor for tensor in other.graph.initializer if tensor.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(0.03, np.float32), "scale"))
    stages = {"makes": opened(maker()), "one": opened(reader()), "two": opened(other)}
    assert maps_in_8_bits([("makes", "map")], stages) == {}


@pytest.mark.parametrize("passed_on", ["bits", "a_float"])
def test_a_map_that_a_stage_hands_on_as_it_came_stays_as_it_is(passed_on) -> None:
    other = reader()
    kind = onnx.TensorProto.UINT8 if passed_on == "bits" else onnx.TensorProto.FLOAT
    other.graph.output.append(helper.make_tensor_value_info(passed_on, kind, AXES))
    assert (
        maps_in_8_bits([("makes", "map")], {"makes": opened(maker()), "reads": opened(other)}) == {}
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="seen on x86 only")
def test_openvino_computes_in_8_bits_with_the_map_that_comes() -> None:
    """A transposition in front of the DequantizeLinear leaves the layer in float32."""
    ov = pytest.importorskip("openvino")
    axes, sides = ["batch", 16, 8, 8], {"kernel_shape": [1, 1]}
    layers = [node("Conv", ["map", "w"], "a", **sides), node("Conv", ["a", "w"], "b", **sides)]
    source = tiny_model({"map": axes}, {"b": axes}, layers, {"w": weights(16, 16, 1, 1)})
    maps = [{"map": np.random.default_rng(0).normal(size=(1, 16, 8, 8)).astype(np.float32)}]
    model = opened(quantised(source, feed_of(maps), Int8Settings(target=Int8Target.OPENVINO)))
    bits = maps_in_8_bits([("none", "map")], {"reads": model, "none": opened(maker())})["map"]
    take(model.graph, model.graph.inputs[0], bits)
    core = ov.Core()
    network = core.read_model(checked(model).SerializeToString())
    options = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", options).create_infer_request()
    request.infer({"map": np.zeros((1, 8, 8, 16), np.uint8)})
    ran = [info for info in request.get_profiling_info() if info.node_type == "Convolution"]
    assert [info.exec_type.rpartition("_")[2] for info in ran] == ["I8", "I8"]
