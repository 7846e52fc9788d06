"""What a stage's graph is made of, opening it for a change of precision, and giving it back."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common
from onnxscript import optimizer

from dyninfer.errors import ExportError
from dyninfer.exporters.graphs import closed, editable
from dyninfer.foreign_errors import reason_of

FINAL_OUTPUTS = ("boxes_xyxy", "class_scores", "logits", "easiness")
"""What a stage computes for the host. How these are made from a network's raw numbers stays in
float32: boxes are pixels up to 1280, which float16 can tell apart only by a whole one."""

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QUANTIZERS = frozenset({QUANTIZE, DEQUANTIZE})
QUANTISED_INPUTS = 3  # the tensor, its scale and its zero point
SUMS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "GlobalAveragePool"}
    | {"GlobalMaxPool"}
)
# what may follow a layer in one fused operator
_FOLLOWERS = frozenset({"Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish", "Tanh"})
# a weight of fewer numbers, such as the bins of a distribution over box sides, is arithmetic of
# the decode and no layer of the network
MIN_WEIGHTS = 34
MIN_OPSET = 13  # the first with one scale for every channel


def computed_inputs(node: ir.Node) -> list[ir.Value]:
    """What a node reads that is neither stored in the graph nor left out."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def constants_of(node: ir.Node) -> list[ir.TensorProtocol]:
    """The stored tensors that a node reads."""
    stored = (value.const_value for value in node.inputs if value is not None)
    return [tensor for tensor in stored if tensor is not None]


def touched(node: ir.Node) -> set[str]:
    """Names of the tensors that a node reads or makes."""
    return {value.name or "" for value in (*node.inputs, *node.outputs) if value is not None}


def is_weighted(node: ir.Node) -> bool:
    """Whether a node is a layer of a network: a convolution or a matrix product."""
    if node.op_type not in WEIGHTED_OPS:
        return False
    makers = [node, *(maker for maker in node.predecessors() if maker.op_type == DEQUANTIZE)]
    weights = [tensor.size for maker in makers for tensor in constants_of(maker)]
    return not weights or max(weights) >= MIN_WEIGHTS


def same_bits(first: ir.Node, second: ir.Node) -> bool:
    """Whether two of :data:`QUANTIZERS` have a single scale and zero point, stored and equal."""
    if not len(first.inputs) == len(second.inputs) == QUANTISED_INPUTS:
        return False
    pairs = zip(first.inputs[1:], second.inputs[1:], strict=True)
    stored = [[None if value is None else value.const_value for value in pair] for pair in pairs]
    return all(
        a is not None
        and b is not None
        and a.size == b.size == 1
        and a.dtype is b.dtype
        and a.numpy().item() == b.numpy().item()
        for a, b in stored
    )


def layers_of(graph: ir.Graph) -> list[ir.Node]:
    """The weighted nodes in the order they run."""
    return [node for node in graph if is_weighted(node)]


def layer_groups(graph: ir.Graph) -> dict[ir.Node, frozenset[ir.Node]]:
    """Layer -> its node and the activation behind it, which quantisation treats as one."""
    groups = {}
    for layer in layers_of(graph):
        inside = {*layer.outputs}
        group, reached = {layer}, [*layer.outputs]
        while reached:
            for node in reached.pop().consumers():
                whole = node.op_type in _FOLLOWERS and inside.issuperset(computed_inputs(node))
                if whole and node not in group:
                    group.add(node)
                    inside.update(node.outputs)
                    reached.extend([*node.outputs, *layer.outputs])
        groups[layer] = frozenset(group)
    return groups


def decode_nodes(graph: ir.Graph, ends: Collection[str] = FINAL_OUTPUTS) -> frozenset[ir.Node]:
    """The nodes that make the final outputs out of what the last layers computed.

    These are the nodes that a final output depends on and no layer does. A stage that ends in
    features has none.
    """
    wanted = {value for value in graph.outputs if value.name in ends}
    feeds_layer: set[ir.Value] = set()
    decode: set[ir.Node] = set()
    for node in reversed(graph):  # the checker guarantees topological order
        if is_weighted(node) or feeds_layer.intersection(node.outputs):
            feeds_layer.update(computed_inputs(node))
        elif wanted.intersection(node.outputs):
            decode.add(node)
            wanted.update(computed_inputs(node))
    return frozenset(decode)


def summary_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    """The nodes that sum over whole tensors, and what follows them, where no layer follows.

    They make what a router reads: few and exact numbers, which nothing is gained by rounding.
    """
    behind: set[ir.Value] = set()
    summaries: set[ir.Node] = set()
    unread_by_layers = decode_nodes(graph, [value.name or "" for value in graph.outputs])
    for node in graph:
        sums = node.op_type in SUMS or behind.intersection(computed_inputs(node))
        if sums and node in unread_by_layers:
            behind.update(node.outputs)
            summaries.add(node)
    return frozenset(summaries)


def end_layers(graph: ir.Graph) -> frozenset[ir.Node]:
    """The layers that the decode reads directly: the raw predictions."""
    decode = decode_nodes(graph)
    return frozenset(
        layer for layer in layers_of(graph) if not decode.isdisjoint(layer.outputs[0].consumers())
    )


def silu_inputs(graph: ir.Graph) -> frozenset[str]:
    """Names of the tensors x that are read by x * sigmoid(x) and by nothing else."""
    found = set()
    for sigmoid in (node for node in graph if node.op_type == "Sigmoid"):
        (x,), (gate,) = computed_inputs(sigmoid), sigmoid.outputs
        products = [node for node in x.consumers() if node is not sigmoid]
        if (
            [node.op_type for node in products] == ["Mul"]
            and products == [*gate.consumers()]
            and not (x.is_graph_output() or gate.is_graph_output())
        ):
            found.add(str(x.name))
    return frozenset(found)


def float_tensors(graph: ir.Graph) -> set[str]:
    """Names of all float32 tensors that are computed or fed, constants left out."""
    computed = (value for node in graph for value in node.outputs)
    return {
        str(value.name)
        for value in (*graph.inputs, *computed)
        if value.dtype is ir.DataType.FLOAT and value.const_value is None
    }


def opened(model: ModelProto) -> ir.Model:
    """A copy whose nodes have unique names, constants are initializers, and types are inferred.

    Weights that the file stores in half precision and casts become plain ones.

    Raises:
        ExportError: the operators are of an opset that is too old, or types cannot be inferred.
    """
    stage = editable(model)
    opset = stage.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ExportError(
            f"a stage has opset {opset}, other precisions need {MIN_OPSET} or later; "
            "export the bundle again"
        )
    for node in stage.graph:
        node.name = node.name or node.op_type
    common.NameFixPass()(stage)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(stage)
    try:
        optimizer.fold_constants(stage, should_fold=lambda node: node.op_type == "Cast")
        common.RemoveUnusedNodesPass()(stage)
        typed = onnx.shape_inference.infer_shapes(closed(stage), strict_mode=True, data_prop=True)
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        reason = reason_of(error)
        raise ExportError(f"the types in a stage's graph cannot be inferred: {reason}") from None
    return ir.from_proto(typed)


def finished(converted: ir.Model, source: ModelProto, what: str) -> ModelProto:
    """The converted stage with the source's versions, checked; traces of the tools are dropped.

    Raises:
        ExportError: inputs or outputs changed, or ONNX's checker finds a fault.
    """
    common.RemoveUnusedNodesPass()(converted)
    common.RemoveUnusedOpsetsPass()(converted)
    model = closed(converted)
    model.ir_version = source.ir_version
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    del model.metadata_props[:]
    found, expected = _border(model), _border(source)
    if found != expected:
        raise ExportError(
            f"a stage in {what} would have other inputs or outputs ({found}) than in float32 "
            f"({expected}); keep it in fp32"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = reason_of(error)
        raise ExportError(f"a stage cannot be written in {what}: {reason}") from None
    return model


def _border(model: ModelProto) -> list[tuple[str, int]]:
    values = (*model.graph.input, *model.graph.output)
    return [(value.name, value.type.tensor_type.elem_type) for value in values]
