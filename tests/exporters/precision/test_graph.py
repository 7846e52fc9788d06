from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import ExportError
from dyninfer.exporters.graphs import closed, count_macs, node_macs
from dyninfer.exporters.precision.graph import (
    decode_nodes,
    end_layers,
    finished,
    layer_groups,
    layers_of,
    opened,
    silu_inputs,
    summary_nodes,
)
from tests.exporters.precision.helpers import conv, silu, two_layers, weights
from tests.support import tiny_model


def stage(bundle, name) -> ir.Graph:
    return opened(onnx.load(Bundle.open(bundle).stage_path(name))).graph


def test_the_decode_begins_behind_the_last_convolutions(small_bundle) -> None:
    head = stage(small_bundle, "head")
    decode = decode_nodes(head)
    kinds = {node.op_type for node in decode}
    assert "Conv" not in kinds
    assert {"Reshape", "Transpose", "Concat", "Sigmoid", "Slice", "Mul"} <= kinds
    assert len(end_layers(head)) == 2  # one for each level


def test_a_stage_that_ends_in_features_has_no_decode(small_bundle) -> None:
    first = stage(small_bundle, "first")
    assert decode_nodes(first) == frozenset() == end_layers(first)


def test_what_a_router_reads_is_a_summary_and_a_gate_is_not(small_bundle) -> None:
    first = stage(small_bundle, "first")
    kinds = sorted(node.op_type for node in summary_nodes(first))
    assert kinds == ["Concat", *["ReduceMean"] * 6]  # of three levels, over rows and then columns
    gated = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node("Mul", ["images", "mean"], ["gated"]),
            conv("gated", "w", "feature"),
        ],
        {"w": weights(8, 3, 3, 3)},
    )
    assert summary_nodes(opened(gated).graph) == frozenset()


def test_bins_of_a_distribution_belong_to_the_decode() -> None:
    model = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"boxes_xyxy": ["batch", 1, 8, 8]},
        [
            conv("images", "w", "raw"),
            helper.make_node("Softmax", ["raw"], ["shares"], axis=1),
            helper.make_node("Conv", ["shares", "bins"], ["boxes_xyxy"], kernel_shape=[1, 1]),
        ],
        {
            "w": weights(16, 3, 3, 3),
            "bins": np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1),
        },
    )
    prepared = opened(model).graph
    assert len(layers_of(prepared)) == 1
    assert len(decode_nodes(prepared)) == 2


@pytest.mark.parametrize(("channels", "counts"), [(33, 0), (34, 1)])  # 33: bins from 0 to 32
def test_from_how_many_weights_on_a_convolution_is_a_layer(channels: int, counts: int) -> None:
    model = tiny_model(
        {"images": ["batch", channels, 1, 1]},
        {"out": ["batch", 1, 1, 1]},
        [helper.make_node("Conv", ["images", "w"], ["out"])],
        {"w": np.ones((1, channels, 1, 1), np.float32)},
    )
    assert len(layers_of(opened(model).graph)) == counts


@pytest.mark.parametrize(("channels", "counts"), [(33, 0), (34, 1)])
def test_weights_that_are_dequantised_count_and_what_makes_the_input_does_not(
    channels: int, counts: int
) -> None:
    model = tiny_model(
        {"images": ["batch", channels, 1, 1]},
        {"out": ["batch", 1, 1, 1]},
        [
            helper.make_node("Add", ["images", "many"], ["moved"]),
            helper.make_node("DequantizeLinear", ["w", "scale"], ["weight"]),
            helper.make_node("Conv", ["moved", "weight"], ["out"]),
        ],
        {
            "many": np.ones((1, channels, 1, 1), np.float32),
            "w": np.ones((1, channels, 1, 1), np.int8),
            "scale": np.array(0.5, np.float32),
        },
    )
    assert len(layers_of(opened(model).graph)) == counts


def test_a_product_of_what_is_computed_is_a_layer() -> None:
    model = tiny_model(
        {"images": ["batch", 2, 2]},
        {"out": ["batch", 2, 2]},
        [
            helper.make_node("Relu", ["images"], ["positive"]),
            helper.make_node("MatMul", ["images", "positive"], ["out"]),
        ],
    )
    assert [node.op_type for node in layers_of(opened(model).graph)] == ["MatMul"]


def test_work_is_counted_as_the_export_counts_it(small_bundle) -> None:
    for name in ("first", "head", "second"):
        model = onnx.load(Bundle.open(small_bundle).stage_path(name))
        layers = layers_of(opened(model).graph)
        assert sum(node_macs(layer) for layer in layers) == count_macs(model)


def test_only_what_nothing_but_silu_reads_counts_as_its_input() -> None:
    assert silu_inputs(opened(two_layers()).graph) == {"c1", "c2"}
    squared = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"out": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            *silu("c", "s"),
            helper.make_node("Add", ["s", "c"], ["out"]),
        ],
        {"w": weights(8, 3, 3, 3)},
    )
    assert silu_inputs(opened(squared).graph) == frozenset()


@pytest.mark.parametrize(
    ("more", "outputs"),
    [
        ([], ["s", "c"]),  # x is an output
        ([], ["s", "c_gate"]),
        ([helper.make_node("Mul", ["c", "c"], ["again"])], ["s", "again"]),
        ([helper.make_node("Relu", ["c_gate"], ["again"])], ["s", "again"]),
        ([helper.make_node("Mul", ["images", "c_gate"], ["again"])], ["s", "again"]),
    ],
)
def test_what_anything_else_reads_beside_silu_is_not_its_input_alone(more, outputs) -> None:
    model = tiny_model(
        {"images": ["batch", 8, 8, 8]},
        {name: ["batch", 8, 8, 8] for name in outputs},
        [conv("images", "w", "c"), *silu("c", "s"), *more],
        {"w": weights(8, 8, 3, 3)},
    )
    assert silu_inputs(opened(model).graph) == frozenset()


def test_a_gate_of_other_numbers_is_no_silu() -> None:
    model = tiny_model(
        {"images": ["batch", 8, 8, 8]},
        {"s": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Sigmoid", ["c"], ["gate"]),
            helper.make_node("Mul", ["images", "gate"], ["s"]),
        ],
        {"w": weights(8, 8, 3, 3)},
    )
    assert silu_inputs(opened(model).graph) == frozenset()


def test_what_reads_another_tensor_too_does_not_go_with_a_layer() -> None:
    model = tiny_model(
        {"images": ["batch", 8, 8, 8]},
        {"out": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Relu", ["c"], ["positive"]),
            helper.make_node("Mul", ["positive", "images"], ["gated"]),
            helper.make_node("Relu", ["gated"], ["out"]),
        ],
        {"w": weights(8, 8, 3, 3)},
    )
    (group,) = layer_groups(opened(model).graph).values()
    assert sorted(node.outputs[0].name for node in group) == ["c", "positive"]


def test_a_stage_with_other_inputs_or_outputs_is_not_finished() -> None:
    ones = [
        tiny_model(
            {"images": [1, 3]}, {name: [1, 3]}, [helper.make_node("Relu", ["images"], [name])]
        )
        for name in ("one", "two")
    ]
    for made, source in (ones, ones[::-1]):
        with pytest.raises(ExportError, match="a stage in fp16 would have other inputs or outputs"):
            finished(opened(made), source, "fp16")
    assert finished(opened(ones[0]), ones[0], "fp16").graph.output[0].name == "one"


def test_nodes_get_names_and_constants_become_initializers() -> None:
    value = onnx.numpy_helper.from_array(np.array(2.0, np.float32))
    model = tiny_model(
        {"images": ["batch", 1]},
        {"out": ["batch", 1]},
        [
            helper.make_node("Constant", [], ["two"], value=value),
            helper.make_node("Constant", [], ["three"], value_float=3.0),
            helper.make_node("Mul", ["images", "two"], ["twice"], name="same"),
            helper.make_node("Mul", ["twice", "three"], ["out"], name="same"),
        ],
    )
    graph = opened(model).graph
    assert list(graph.initializers) == ["two", "three"]
    assert len({node.name for node in graph}) == 2
    assert len(model.graph.node) == 4


def test_weights_stored_in_half_precision_become_plain_ones() -> None:
    half = np.arange(4, dtype=np.float16).reshape(1, 4)
    model = tiny_model(
        {"images": ["batch", 4]},
        {"sum": ["batch", 4]},
        [
            helper.make_node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["images", "weight"], ["sum"]),
        ],
        {"half": half},
    )
    graph = closed(opened(model)).graph
    assert [node.op_type for node in graph.node] == ["Add"]
    (tensor,) = graph.initializer
    assert (tensor.name, tensor.data_type) == ("weight", TensorProto.FLOAT)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), half)


def test_an_opset_without_scales_per_channel_is_refused() -> None:
    model = two_layers()
    model.opset_import[0].version = 13
    assert len(layers_of(opened(model).graph)) == 2
    model.opset_import[0].version = 12
    with pytest.raises(ExportError, match="opset 12"):
        opened(model)


def test_what_does_not_fit_together_is_refused_before_anything_is_changed() -> None:
    model = tiny_model(
        {"images": [1, 3]},
        {"out": [1, 4]},
        [helper.make_node("Relu", ["images"], ["out"])],
    )
    with pytest.raises(ExportError, match="types in a stage's graph cannot be inferred"):
        opened(model)
