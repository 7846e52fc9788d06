"""What somebody's graph holds: its nodes, its weights, and what it computes in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.graphs import COUNTED, INTEGER_OPS

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NUMBERS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    | {TensorProto.INT8, TensorProto.UINT8}
)
_PASSES_ON = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_NAMES_A_TYPE = ("to", "dtype")  # attributes of Cast, EyeLike and so on


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph and of its nodes' inner graphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def tensors_of(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    """Every tensor stored in a graph or function, in its nodes, and in their inner graphs."""
    if isinstance(graph, GraphProto):
        yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors_of(inner)


def in_running_order(graph: GraphProto) -> bool:
    """Whether every node stands behind those that it reads from, itself or in an inner graph."""
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        graphs = (g for attribute in node.attribute for g in (attribute.g, *attribute.graphs))
        within = (name for g in graphs for inner in nodes_of(g) for name in inner.input)
        if later.intersection((*node.input, *within)):
            return False
        later.difference_update(node.output)
    return True


def parameter_count(graph: GraphProto) -> int:
    """Number of weights, quantised ones too; single numbers are constants of the graph."""
    return sum(
        math.prod(tensor.dims)
        for tensor in tensors_of(graph)
        if tensor.dims and tensor.data_type in _NUMBERS
    )


def precision_of(graph: GraphProto) -> Precision:
    """int8 where layers are quantised, else what most layers read.

    How weights are stored does not count: some files hold float16 that is cast to float32.
    """
    nodes = list(nodes_of(graph))
    operators = {node.op_type for node in nodes}
    if operators & INTEGER_OPS or operators >= _PAIR:
        return Precision.INT8
    types = {tensor.name: tensor.data_type for tensor in tensors_of(graph) if tensor.name}
    for node in nodes:  # in a damaged file, without inputs, outputs or attributes too
        made = _cast_to(node)
        if node.op_type == "Constant":
            made = next((a.t.data_type for a in node.attribute if a.HasField("t")), None)
        elif node.op_type in _PASSES_ON:
            made = next((types[name] for name in node.input[:1] if name in types), None)
        if made is not None:
            types |= dict.fromkeys(node.output[:1], made)
    read = [types.get(n) for node in nodes if node.op_type in COUNTED for n in node.input[1:2]]
    half = read.count(TensorProto.FLOAT16) > read.count(TensorProto.FLOAT)
    return Precision.FP16 if half else Precision.FP32


def _cast_to(node: NodeProto) -> int | None:
    """The type that a Cast makes."""
    is_cast = node.op_type == "Cast"
    return next((int(a.i) for a in node.attribute if is_cast and a.name == "to"), None)


def rounds_to_half(graph: GraphProto) -> bool:
    """Whether anything is rounded to float16 on the way: an input, an output, a layer."""
    values = (*graph.input, *graph.output)
    return (
        any(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in values)
        or any(_cast_to(node) == TensorProto.FLOAT16 for node in nodes_of(graph))
        or precision_of(graph) is Precision.FP16
    )


def widened(model: ModelProto) -> ModelProto:
    """The model with float32 wherever it has float16: the same weights, and no rounding between."""
    wide = ModelProto()
    wide.CopyFrom(model)
    for tensor in tensors_of(wide.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            exact = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))
    inner = []
    for node in nodes_of(wide.graph):
        for attribute in node.attribute:
            if attribute.name in _NAMES_A_TYPE and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            inner += [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]
    for graph in (wide.graph, *inner):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            kind = value.type.tensor_type
            if kind.elem_type == TensorProto.FLOAT16:
                kind.elem_type = TensorProto.FLOAT
    return wide
