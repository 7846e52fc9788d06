from __future__ import annotations

import platform

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.exporters.precision import settings as quant_settings
from dyninfer.exporters.precision.convert import stage_feed
from dyninfer.exporters.precision.fp16 import half_around_int8, rounded_to_float16
from dyninfer.exporters.precision.graph import decode_nodes, end_layers
from dyninfer.exporters.precision.int8 import observe_stage, prepare_int8, to_int8
from dyninfer.exporters.precision.sensitivity import deviations
from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings, Int8Target
from tests import support
from tests.exporters.precision.helpers import (
    assert_same_frame,
    conv,
    elem_types,
    feed_of,
    images,
    run,
    silu,
    two_layers,
    weights,
)
from tests.support import tiny_model

SILU_FLOOR = -6.0
TARGETS = pytest.mark.parametrize("target", list(Int8Target))


def quantised(source, feed, settings, **options) -> onnx.ModelProto:
    prepared = prepare_int8(source)
    return to_int8(prepared, observe_stage(prepared, feed, settings), settings, **options)


def kinds(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def initializers_of(graph) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}


def zero_points(model) -> dict[str, np.ndarray]:
    constants = initializers_of(model.graph)
    return {
        node.name: numpy_helper.to_array(constants[node.input[2]])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


@TARGETS
@pytest.mark.parametrize("method", list(CalibrationMethod))
def test_outputs_stay_close_and_the_frame_is_the_same(target, method) -> None:
    source, settings = two_layers(), Int8Settings(target=target, method=method)
    converted = quantised(source, feed_of(images()), settings)
    assert_same_frame(converted, source)
    sample = images(1, seed=5)[0]
    found = deviations(run(source, sample), run(converted, sample))
    assert 0 < max(found.values()) < 0.1


@TARGETS
def test_weights_have_one_scale_for_every_output_channel(target) -> None:
    converted = quantised(two_layers(), feed_of(images()), Int8Settings(target=target))
    weights = [t for t in converted.graph.initializer if t.data_type == TensorProto.INT8]
    assert sorted(tuple(t.dims) for t in weights if len(t.dims) == 4) == [
        (8, 3, 3, 3),
        (8, 8, 3, 3),
    ]
    per_channel = [
        node for node in converted.graph.node if any(a.name == "axis" for a in node.attribute)
    ]
    assert len(per_channel) == 2


def test_tensorrt_gets_symmetric_int8_in_front_of_layers_only() -> None:
    settings = Int8Settings(target=Int8Target.TENSORRT)
    converted = quantised(two_layers(), feed_of(images()), settings)
    points = zero_points(converted)
    assert points
    for point in points.values():
        assert point.dtype == np.int8
        assert not point.any()
    quantised_tensors = {n.input[0] for n in converted.graph.node if n.op_type == "QuantizeLinear"}
    assert quantised_tensors == {"images", "feature"}
    made = {name: node.op_type for node in converted.graph.node for name in node.output}
    assert made["feature"] == made["deep"] == "Mul"  # outputs are as precise as they were made
    assert not any(t.data_type == TensorProto.INT32 for t in converted.graph.initializer)


def split_map() -> onnx.ModelProto:
    """A layer whose map is read by another one, resized and split, and a layer for each half."""
    halves = ["left", "right"]
    return tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"deep": ["batch", 8, 8, 8]} | {f"{h}_deep": ["batch", 8, 16, 16] for h in halves},
        [
            conv("images", "w", "c"),
            *silu("c", "map"),
            conv("map", "w_deep", "deep"),
            helper.make_node("Resize", ["map", "", "twice"], ["large"]),
            helper.make_node("Split", ["large"], halves, axis=1),
            *(conv(half, f"w_{half}", f"{half}_deep") for half in halves),
        ],
        {"w": weights(8, 3, 3, 3), "w_deep": weights(8, 8, 3, 3)}
        | {"twice": np.array([1, 1, 2, 2], np.float32)}
        | {f"w_{half}": weights(8, 4, 3, 3, seed=seed) for seed, half in enumerate(halves)},
    )


def test_openvino_gets_8_bits_in_front_of_layers_and_of_what_moves_them() -> None:
    settings = Int8Settings(target=Int8Target.OPENVINO)
    converted = quantised(two_layers(), feed_of(images()), settings)
    read = {n.input[0] for n in converted.graph.node if n.op_type == "QuantizeLinear"}
    assert read == {"images", "feature"}  # neither what a layer nor what a sigmoid made
    made = {name: node.op_type for node in converted.graph.node for name in node.output}
    assert made["feature"] == made["deep"] == "Mul"
    converted = quantised(split_map(), feed_of(images()), settings)
    read = {n.input[0] for n in converted.graph.node if n.op_type == "QuantizeLinear"}
    assert read == {"images", "map"}
    (resize,) = (node for node in converted.graph.node if node.op_type == "Resize")
    made = {name: node.op_type for node in converted.graph.node for name in node.output}
    assert made[resize.input[0]] == "DequantizeLinear"


@pytest.mark.parametrize(
    ("target", "times"), [(Int8Target.OPENVINO, 1), (Int8Target.TENSORRT, 2)], ids=str
)
def test_a_map_that_two_layers_read_is_quantised_once_but_for_tensorrt(target, times) -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"left": ["batch", 8, 8, 8], "right": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            *silu("c1", "map"),
            conv("map", "w2", "left"),
            conv("map", "w3", "right"),
        ],
        {"w1": weights(8, 3, 3, 3)} | {f"w{i}": weights(8, 8, 3, 3, seed=i) for i in (2, 3)},
    )
    converted = quantised(source, feed_of(images()), Int8Settings(target=target))
    read = [n.input[0] for n in converted.graph.node if n.op_type == "QuantizeLinear"]
    assert read.count("map") == times


def test_the_cpu_gets_everything_between_two_layers_in_8_bits() -> None:
    converted = quantised(two_layers(), feed_of(images()), Int8Settings())
    read = {n.input[0] for n in converted.graph.node if n.op_type == "QuantizeLinear"}
    assert {"images", "c1", "c1_gate", "c2", "c2_gate"} <= read


@TARGETS
def test_the_decode_stays_in_float32(small_bundle, target) -> None:
    bundle = Bundle.open(small_bundle)
    source = onnx.load(bundle.stage_path("head"))
    feed = stage_feed(PlainStages(bundle), "head", support.random_pictures(3))
    settings = Int8Settings(target=target)
    prepared = prepare_int8(source)
    converted = to_int8(prepared, observe_stage(prepared, feed, settings), settings)
    made = {name: node for node in converted.graph.node for name in node.output}
    decode = {node.name for node in decode_nodes(prepared.graph)}
    assert len(decode) > 10
    for node in converted.graph.node:
        if node.name in decode and node.op_type != "Shape":  # 8 bits have the same shape
            makers = [made[name].op_type for name in node.input if name in made]
            assert "DequantizeLinear" not in makers
    float_layers = {
        n.name
        for n in converted.graph.node
        if n.op_type == "Conv" and n.input[1] in initializers_of(converted.graph)
    }
    assert float_layers == {layer.name for layer in end_layers(prepared.graph)}


def test_what_is_kept_and_what_alone_is_quantised() -> None:
    prepared = prepare_int8(two_layers())
    settings = Int8Settings()
    observed = observe_stage(prepared, feed_of(images()), settings)
    convs = [node for node in prepared.graph if node.op_type == "Conv"]
    everything = list(prepared.graph)
    assert "QuantizeLinear" not in kinds(to_int8(prepared, observed, settings, keep=everything))
    assert "QuantizeLinear" not in kinds(to_int8(prepared, observed, settings, only=[]))
    one = to_int8(prepared, observed, settings, only=convs[:1])
    assert (
        sum(t.data_type == TensorProto.INT8 and len(t.dims) == 4 for t in one.graph.initializer)
        == 1
    )


def test_steps_are_not_wasted_on_what_silu_makes_zero() -> None:
    source, settings = two_layers(scale=60), Int8Settings()
    prepared = prepare_int8(source)
    observed = observe_stage(prepared, feed_of(images()), settings)
    assert observed["c1"].lowest < 4 * SILU_FLOOR
    converted = to_int8(prepared, observed, settings)
    constants = initializers_of(converted.graph)
    node = next(
        n for n in converted.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "c1"
    )
    scale, point = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
    assert -float(scale) * float(point) == pytest.approx(SILU_FLOOR, abs=float(scale))


@pytest.mark.parametrize(("instructions", "largest"), [("avx2", 64), ("avx512_vnni", 127)])
def test_weights_have_7_bits_where_pairs_of_products_would_saturate(
    monkeypatch, instructions, largest
) -> None:
    """On x86 without dot products (maddubs adds two of them in 16 bits)."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(quant_settings, "read_cpuinfo", lambda: f"flags : fpu {instructions}\n")
    converted = quantised(two_layers(), feed_of(images()), Int8Settings())
    kernels = [
        numpy_helper.to_array(tensor)
        for tensor in converted.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(kernels) == 2
    for kernel in kernels:
        # every channel has its own scale, by which its largest weight is the largest number
        assert np.abs(kernel.astype(int)).max(axis=(1, 2, 3)).tolist() == [largest] * 8


def test_what_a_router_reads_is_averaged_in_float32() -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8], "pooled": ["batch", 8, 1, 1]},
        [
            conv("images", "w", "c"),
            *silu("c", "feature"),
            helper.make_node("GlobalAveragePool", ["feature"], ["mean"]),
            helper.make_node("Add", ["mean", "shift"], ["pooled"]),
        ],
        {"w": weights(8, 3, 3, 3), "shift": np.full((1, 8, 1, 1), 0.1, np.float32)},
    )
    converted = quantised(source, feed_of(images()), Int8Settings())
    made = {name: node for node in converted.graph.node for name in node.output}
    assert made["pooled"].op_type == "Add"
    assert made["mean"].op_type == "GlobalAveragePool"
    read = {node.input[0] for node in converted.graph.node if node.op_type == "QuantizeLinear"}
    assert not read & {"mean", "pooled"}
    assert "c" in read


def test_a_layer_that_reads_infinity_stays_in_float32() -> None:
    """As of padding for a maximum, which no range of 8 bits can hold."""
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"deep": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            helper.make_node("Add", ["c1", "edge"], ["padded"]),
            helper.make_node("Clip", ["padded", "least"], ["clipped"]),
            conv("clipped", "w2", "deep"),
        ],
        {
            "w1": weights(8, 3, 3, 3),
            "w2": weights(8, 8, 3, 3, seed=1),
            "edge": np.where(np.arange(8) == 3, -np.inf, 0).astype(np.float32),
            "least": np.array(-1, np.float32),
        },
    )
    converted = quantised(source, feed_of(images()), Int8Settings())
    read = {node.input[0] for node in converted.graph.node if node.op_type == "QuantizeLinear"}
    assert "images" in read
    assert "padded" not in read
    sample = images(1, seed=5)[0]
    found = run(converted, sample)["deep"]
    assert np.isfinite(found).all()
    # where a processor cannot add up products of 8 bits, weights have 7
    np.testing.assert_allclose(found, run(source, sample)["deep"], atol=0.2)


def test_a_stage_without_layers_stays_as_it_is(tmp_path) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    source = onnx.load(bundle.stage_path("head"))
    feed = feed_of([{"value": np.ones((1, 3), np.float32)}])
    converted = quantised(source, feed, Int8Settings())
    assert_same_frame(converted, source)
    assert "QuantizeLinear" not in kinds(converted)


TENSORRT = Int8Settings(target=Int8Target.TENSORRT)


def node_kinds(model, elem_type: int) -> set[str]:
    """The operators whose first output has this type."""
    types = elem_types(model)
    return {n.op_type for n in model.graph.node if types[n.output[0]] == elem_type}


def test_float16_around_8_bits_has_float16_scales_and_the_same_results() -> None:
    exact = quantised(two_layers(), feed_of(images()), TENSORRT)
    half = half_around_int8(exact, {})
    assert (half.opset_import[0].version, half.ir_version) == (19, 9)
    onnx.checker.check_model(half, full_check=True)
    assert [v.type for v in half.graph.output] == [v.type for v in exact.graph.output]
    scales = initializers_of(half.graph)
    kept = [n for n in half.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {scales[node.input[1]].data_type for node in kept} == {TensorProto.FLOAT16}
    assert len(kept) == sum(kind.endswith("tizeLinear") for kind in kinds(exact)) == 6
    assert node_kinds(half, TensorProto.FLOAT) == {"Cast"}
    sample = images(1, seed=5)[0]
    for ran in (half, rounded_to_float16(half)):
        for name, array in run(exact, sample).items():
            # where a number lies between two of 8 bits, the kernels of a version decide
            off = np.abs(run(ran, sample)[name] - array) / np.abs(array).max()
            assert off.max() < 0.05
            assert off.mean() < 0.01


@pytest.mark.parametrize("name", ["first", "head", "second"])
def test_float16_around_a_detectors_stages_leaves_what_is_exact_in_float32(
    small_bundle, name
) -> None:
    bundle = Bundle.open(small_bundle)
    source = onnx.load(bundle.stage_path(name))
    feed = stage_feed(PlainStages(bundle), name, support.random_pictures(3))
    exact = quantised(source, feed, TENSORRT)
    half = half_around_int8(exact, {})
    assert {"Conv"} <= node_kinds(half, TensorProto.FLOAT16)
    assert "Conv" not in node_kinds(half, TensorProto.FLOAT)
    types = elem_types(half)
    for node in half.graph.node:  # sums for the router, and the decode
        if node.op_type in ("ReduceMean", "Exp", "Sub", "Softmax"):
            assert types[node.output[0]] == TensorProto.FLOAT
    sample = next(iter(feed()))
    expected = run(source, sample)
    lost, also = (deviations(expected, run(model, sample)) for model in (exact, half))
    for output in expected:
        assert also[output] <= 1.25 * lost[output] + 0.01


@pytest.mark.parametrize(
    ("scale", "largest"),
    [(3e-6, {}), (1e5, {}), (1.0, {"c2": 3e4})],
    ids=["tiny weights", "huge weights", "its results"],
)
def test_a_layer_beyond_float16_stays_in_float32_with_all_it_dequantises(scale, largest) -> None:
    source = two_layers()
    for tensor in source.graph.initializer:
        if tensor.name == "w2":
            scaled = numpy_helper.to_array(tensor) * np.float32(scale)
            tensor.CopyFrom(numpy_helper.from_array(scaled, "w2"))
    half = half_around_int8(quantised(source, feed_of(images()), TENSORRT), largest)
    types, made = elem_types(half), {n.output[0]: n for n in half.graph.node}
    layers = [node for node in half.graph.node if node.op_type == "Conv"]
    assert [types[layer.output[0]] for layer in layers] == [TensorProto.FLOAT16, TensorProto.FLOAT]
    for layer in layers:
        makers = [made[name] for name in layer.input if name in made]
        assert [maker.op_type for maker in makers] == ["DequantizeLinear"] * 2
    sample = images(1, seed=5)[0]
    expected = run(source, sample)
    assert max(deviations(expected, run(half, sample)).values()) < 0.1


def test_a_stage_in_which_nothing_is_in_8_bits_is_as_in_float16() -> None:
    prepared = prepare_int8(two_layers())
    observed = observe_stage(prepared, feed_of(images()), TENSORRT)
    plain = to_int8(prepared, observed, TENSORRT, only=[])
    half = half_around_int8(plain, {})
    assert half.opset_import[0].version == plain.opset_import[0].version
    assert "Conv" in node_kinds(half, TensorProto.FLOAT16)
