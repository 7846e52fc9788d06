"""Multiply-accumulates of convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.types import Float32Array

COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def count_macs(model: ModelProto) -> int:
    """Multiply-accumulates of one image, by shape inference."""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True)).graph
    return sum(node_macs(node) for node in graph if node.op_type in COUNTED)


def measured_macs(model: ModelProto, image: Float32Array) -> int:
    """Multiply-accumulates of one image, by a run.

    Exported detectors compute shapes in ways that ONNX's shape inference gives up on. Operators of
    inner graphs do not count. ``model`` has one input, for an ``image`` (1, 3, H, W).
    """
    from dyninfer.exporters.probe import Probe  # a PyTorch export needs no ONNX Runtime

    nodes = [node for node in ir.from_proto(model).graph if node.op_type in COUNTED]
    names = {str(value.name) for node in nodes for value in _operands(node)}
    seen = Probe(model, names).read({model.graph.input[0].name: image})
    return sum(node_macs(node, lambda value: seen[str(value.name)].shape) for node in nodes)


def _operands(node: ir.Node) -> list[ir.Value]:
    """The output and the two factors of a counted node."""
    return [value for value in (node.outputs[0], *node.inputs[:2]) if value is not None]


def _declared(value: ir.Value) -> Sequence[int]:
    return [axis if isinstance(axis, int) else 1 for axis in value.shape or ()]


def node_macs(node: ir.Node, shape_of: Callable[[ir.Value], Sequence[int]] = _declared) -> int:
    """Multiply-accumulates of a node of :data:`COUNTED`; open axes count as 1."""
    result, first, second = map(shape_of, _operands(node))
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(result) * first[0 if transposed else -1]
