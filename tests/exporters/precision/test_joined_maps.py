"""Maps are rounded once, before they are joined, pooled or repeated."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from dyninfer.exporters.precision.int8 import prepare_int8
from dyninfer.exporters.precision.joined_maps import round_before, shared_ranges
from dyninfer.exporters.precision.layer_errors import own_errors
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from tests.exporters.precision.helpers import conv, feed_of, images, run, silu, weights
from tests.exporters.precision.test_int8 import quantised
from tests.support import tiny_model

OPENVINO = Int8Settings(target=Int8Target.OPENVINO)
TWICE = {"twice": np.array([1, 1, 2, 2], np.float32)}


def layer(source: str, target: str) -> list[onnx.NodeProto]:
    """A convolution, whose weight is named after what it makes, and its activation."""
    return [conv(source, f"w_{target}", f"{target}_c"), *silu(f"{target}_c", target)]


def pool(source: str, target: str) -> onnx.NodeProto:
    sides = {"kernel_shape": [3, 3], "pads": [1] * 4}
    return helper.make_node("MaxPool", [source], [target], **sides)


def join(parts: Sequence[str], target: str = "joined") -> onnx.NodeProto:
    return helper.make_node("Concat", [*parts], [target], axis=1)


def stage(nodes: Sequence, channels: dict[str, int], outputs: Collection[str], side: int = 8):
    """images (N, 3, 8, 8) -> outputs of 4 channels; ``channels`` of what other layers read."""
    made = [node.output[0].removesuffix("_c") for node in nodes if node.op_type == "Conv"]
    reads = [node.input[0] for node in nodes if node.op_type == "Conv"]
    stored = {
        f"w_{target}": weights(
            4, channels.get(source, 4), 3, 3, seed=place, scale=0.5 if place else 0.3
        )
        for place, (target, source) in enumerate(zip(made, reads, strict=True))
    }
    return tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {name: ["batch", 4, side, side] for name in outputs},
        nodes,
        stored | (TWICE if any(node.op_type == "Resize" for node in nodes) else {}),
    )


def block() -> onnx.ModelProto:
    """Layers in a row, whose maps the next one reads, and one that reads all of them at once."""
    return stage(
        [
            *layer("images", "a"),
            *layer("a", "b"),
            *layer("b", "c"),
            join(["c", "b", "a"]),
            *layer("joined", "deep"),
        ],
        {"images": 3, "joined": 12},
        ["deep"],
    )


def pooled() -> onnx.ModelProto:
    """A map beside itself, pooled once and twice, as in spatial pyramid pooling."""
    return stage(
        [
            *layer("images", "a"),
            pool("a", "p"),
            pool("p", "q"),
            join(["a", "p", "q"]),
            *layer("joined", "deep"),
            *layer("p", "other"),
        ],
        {"images": 3, "joined": 12},
        ["deep", "other"],
    )


def repeated(mode: str) -> onnx.ModelProto:
    resize = helper.make_node("Resize", ["a", "", "twice"], ["large"], mode=mode)
    nodes = [*layer("images", "a"), resize, *layer("large", "deep")]
    return stage(nodes, {"images": 3}, ["deep"], side=16)


def rounded(model: onnx.ModelProto) -> list[str]:
    return [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]


def shaped(name: str, shape: Sequence[str | int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def bits_of(model: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """What is rounded -> its scale and zero point."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        node.input[0]: (stored[node.input[1]].item(), stored[node.input[2]].item())
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def shared(
    nodes: Sequence, outputs: Collection[str], ranges: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """The ranges that are shared, if all convolutions are in 8 bits."""
    graph = ir.from_proto(stage(nodes, {"images": 3}, outputs)).graph
    for place, node in enumerate(graph):
        node.name = f"{node.op_type}_{place}"
    chosen = [str(node.name) for node in graph if node.op_type == "Conv"]
    given = {name: tuple(map(np.float32, ends)) for name, ends in ranges.items()}
    found = shared_ranges(graph, given, chosen)
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def up_to(**tops: float) -> dict[str, tuple[float, float]]:
    return {name: (0, top) for name, top in tops.items()}


def test_where_nothing_is_joined_no_range_is_shared() -> None:
    assert shared(layer("images", "deep"), ["deep"], up_to(images=1, deep=2)) == {}


def test_ranges_are_shared_by_what_is_joined_and_joined_again() -> None:
    nodes = [
        *layer("images", "a"),
        *layer("a", "b"),
        pool("b", "p"),
        join(["a", "p"]),
        join(["joined", "images"], "more"),
        *layer("more", "deep"),
    ]
    ranges = up_to(images=9, a=7, b=6, p=5, joined=7, more=8, deep=9)
    alike = up_to(a=8, b=8, p=8, joined=8, more=8)
    assert shared(nodes, ["deep"], ranges) == alike  # and not what another stage rounds, too
    without = {name: ends for name, ends in alike.items() if name != "b"}
    assert shared(nodes, ["deep", "b"], ranges) == without
    assert shared(nodes, ["deep"], up_to(images=9, deep=9)) == {}


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ({"a": (0, 4), "b": (0, 3.9), "joined": (0, 8)}, {"a": (0, 8), "joined": (0, 8)}),
        ({"a": (0, 10), "b": (-5, 0)}, {}),
        ({"a": (0, 10), "b": (-10, 0)}, {"a": (-10, 10), "b": (-10, 10)}),
        ({"a": (8, 10), "b": (0, 2)}, {}),  # 8 bits stand for 0, too
        ({"a": (8, 10), "b": (0, 5)}, {"a": (0, 10), "b": (0, 10)}),
        ({"a": (0, 0), "b": (0, 0)}, {"a": (0, 0), "b": (0, 0)}),
    ],
)
def test_a_tensor_that_would_lose_more_than_a_bit_keeps_its_range(ranges, expected) -> None:
    nodes = [*layer("images", "a"), *layer("a", "b"), join(["a", "b"]), *layer("joined", "deep")]
    assert shared(nodes, ["deep"], ranges) == expected


@pytest.mark.parametrize("reader", [None, "ReduceMean"])
def test_what_no_layer_reads_in_8_bits_shares_no_range(reader) -> None:
    nodes = [*layer("images", "a"), *layer("a", "b"), join(["a", "b"])]
    if reader:
        nodes.append(helper.make_node(reader, ["joined"], ["mean"]))
    ranges = up_to(a=1, b=2, joined=2)
    assert shared([*nodes, *layer("joined", "deep")], ["deep", "joined"], ranges) == {}
    assert shared(nodes, ["mean" if reader else "joined"], ranges) == {}


def test_the_parts_of_a_joined_map_are_rounded_alike_and_it_is_not_rounded_again() -> None:
    converted = quantised(block(), feed_of(images()), OPENVINO)
    assert sorted(rounded(converted)) == ["a", "b", "c", "images"]
    bits = bits_of(converted)
    assert bits["a"] == bits["b"] == bits["c"] != bits["images"]
    (joins,) = (node for node in converted.graph.node if node.op_type == "Concat")
    made = {name: node for node in converted.graph.node for name in node.output}
    assert {made[name].op_type for name in joins.input} == {"DequantizeLinear"}
    (reader,) = (node for node in converted.graph.node if joins.output[0] in node.input)
    assert reader.op_type == "Conv"


def test_a_map_is_pooled_in_8_bits_and_not_rounded_again() -> None:
    converted = quantised(pooled(), feed_of(images()), OPENVINO)
    assert rounded(converted) == ["images", "a"]


@pytest.mark.parametrize(("mode", "found"), [("nearest", "a"), ("linear", "large")])
def test_pixels_are_rounded_before_they_are_repeated_but_not_before_they_are_mixed(
    mode, found
) -> None:
    converted = quantised(repeated(mode), feed_of(images()), OPENVINO)
    assert rounded(converted) == ["images", found]


def with_places() -> onnx.ModelProto:
    """A pool that also tells where its values were."""
    nodes = [*layer("images", "a"), pool("a", "p"), *layer("p", "deep")]
    source = stage(nodes, {"images": 3}, ["deep"])
    (pools,) = (node for node in source.graph.node if node.op_type == "MaxPool")
    pools.output.append("places")
    places = helper.make_tensor_value_info("places", onnx.TensorProto.INT64, ["batch", 4, 8, 8])
    source.graph.output.append(places)
    return source


def with_gaps() -> onnx.ModelProto:
    wide = {"kernel_shape": [3, 3], "pads": [2] * 4, "dilations": [2, 2]}
    nodes = [*layer("images", "a"), helper.make_node("MaxPool", ["a"], ["p"], **wide)]
    return stage([*nodes, *layer("p", "deep")], {"images": 3}, ["deep"])


def by_coordinates(mode: str) -> onnx.ModelProto:
    source = repeated("nearest")
    (resize,) = (node for node in source.graph.node if node.op_type == "Resize")
    resize.attribute.append(helper.make_attribute("coordinate_transformation_mode", mode))
    return source


def test_what_openvino_does_in_float32_is_rounded_behind() -> None:
    for source in (with_places(), with_gaps(), by_coordinates("align_corners")):
        assert rounded(quantised(source, feed_of(images()), OPENVINO))[-1] in {"p", "large"}
    for mode in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        found = rounded(quantised(by_coordinates(mode), feed_of(images()), OPENVINO))
        assert found == ["images", "a"]


@pytest.mark.parametrize("source", [block(), pooled(), repeated("nearest")])
def test_a_layer_behind_such_nodes_is_one_whose_error_is_known(source) -> None:
    prepared = prepare_int8(source)
    converted = quantised(source, feed_of(images()), OPENVINO)
    errors = own_errors(prepared, converted, Int8Target.OPENVINO, images(1, seed=5)[0])
    layers = [node for node in prepared.graph if node.op_type == "Conv"]
    assert [node.name for node in errors] == [node.name for node in layers]
    assert all(0 < error < 0.1 for error in errors.values())


@pytest.mark.parametrize("target", [Int8Target.CPU, Int8Target.TENSORRT])
def test_other_targets_round_what_a_layer_reads(target) -> None:
    converted = quantised(block(), feed_of(images()), Int8Settings(target=target))
    assert "joined" in rounded(converted)


@pytest.mark.parametrize("source", [block(), pooled(), repeated("nearest")])
def test_the_numbers_stay_close_and_layers_read_whole_steps(source) -> None:
    given = images(1, seed=7)[0]
    converted = quantised(source, feed_of([given, *images(15)]), OPENVINO)
    exact, found = run(source, given), run(converted, given)
    for name, array in exact.items():
        np.testing.assert_allclose(found[name], array, atol=0.05 * np.abs(array).max())
    scale, zero_point = bits_of(converted)["a"]
    layers = [node.input[0] for node in converted.graph.node if node.op_type == "Conv"]
    for name in layers[1:]:
        shown = onnx.ModelProto()
        shown.CopyFrom(converted)
        shown.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        steps = run(shown, given)[name] / np.float32(scale) + zero_point
        assert np.abs(steps - steps.round()).max() < 1e-3
        assert steps.min() > -0.5
        assert steps.max() < 255.5


def test_what_another_stage_reads_is_rounded_for_the_layer_alone() -> None:
    nodes = [*layer("images", "a"), *layer("a", "b"), join(["a", "b"]), *layer("joined", "deep")]
    source = stage(nodes, {"images": 3, "joined": 8}, ["deep"])
    source.graph.output.append(shaped("joined", ["batch", 8, 8, 8]))
    converted = quantised(source, feed_of(images()), OPENVINO)
    assert "joined" in rounded(converted)
    given = images(1, seed=7)[0]
    found, exact = (run(model, given)["joined"][:, 4:] for model in (converted, source))
    np.testing.assert_allclose(found, exact, atol=0.05)


def test_a_part_that_was_rounded_otherwise_is_rounded_for_the_joined_map() -> None:
    """As a map of another stage is, whose range is not this stage's to choose."""
    nodes = [*layer("images", "a"), join(["images", "a"]), *layer("joined", "deep")]
    converted = quantised(
        stage(nodes, {"images": 3, "joined": 7}, ["deep"]), feed_of(images()), OPENVINO
    )
    bits = bits_of(converted)
    (again,) = bits.keys() - {"images", "a"}
    assert bits[again] == bits["a"] != bits["images"]


def test_two_joined_maps_share_what_was_rounded_for_one() -> None:
    def node(kind: str, inputs: list[str], output: str, **attributes) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], **attributes)

    bits = ["scale", "zero"]
    nodes = [node("Relu", ["images"], "a"), node("Neg", ["images"], "b")]
    for name, parts in {"one": ["a", "b"], "two": ["b", "a", "a"]}.items():
        nodes += [
            join(parts, f"{name}_joined"),
            node("QuantizeLinear", [f"{name}_joined", *bits], f"{name}_8"),
            node("DequantizeLinear", [f"{name}_8", *bits], f"{name}_float"),
            node("Abs", [f"{name}_float"], name),
        ]
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"one": ["batch", 6, 8, 8], "two": ["batch", 9, 8, 8]},
        nodes,
        {"scale": np.array(0.01, np.float32), "zero": np.array(128, np.uint8)},
    )
    model = ir.from_proto(source)
    round_before(model.graph)
    changed = ir.to_proto(model)
    assert sorted(rounded(changed)) == ["a", "b"]
    given = images(1)[0]
    for name, array in run(source, given).items():
        assert np.array_equal(run(changed, given)[name], array)


@pytest.mark.parametrize(
    ("scale", "zero_point", "attributes"),
    [
        (np.full(6, 0.01, np.float32), np.full(6, 128, np.uint8), {"axis": 1}),
        (np.array(0.01, np.float32), None, {}),
    ],
    ids=["one for each channel", "no zero point"],
)
def test_other_ways_of_rounding_stay_as_they_are(scale, zero_point, attributes) -> None:
    stored = {"scale": scale} | ({} if zero_point is None else {"zero": zero_point})
    nodes = [
        helper.make_node("Relu", ["images"], ["a"]),
        join(["a", "images"]),
        helper.make_node("QuantizeLinear", ["joined", *stored], ["bits"], **attributes),
        helper.make_node("DequantizeLinear", ["bits", *stored], ["float"], **attributes),
        helper.make_node("Abs", ["float"], ["out"]),
    ]
    shapes = {"images": ["batch", 3, 8, 8]}, {"out": ["batch", 6, 8, 8]}
    model = ir.from_proto(tiny_model(*shapes, nodes, stored))
    round_before(model.graph)
    assert rounded(ir.to_proto(model)) == ["joined"]
