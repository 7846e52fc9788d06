"""ONNX models in memory: changed, run on the CPU, and counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, helper, numpy_helper

from dyninfer.types import AnyArray, Float32Array

ANY_PIXELS = 1 << 40
"""Of a model that may take all the memory that any may."""
INTEGER_OPS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
# as multiply-accumulates
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}) | INTEGER_OPS


def editable(model: ModelProto) -> ir.Model:
    """A copy to be changed; ``from_proto`` alone shares the weights, and their names, with it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return ir.from_proto(copy)


def closed(model: ir.Model) -> ModelProto:
    """The model for a file: no types but those of inputs and outputs."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def add_prefix(graph: ir.Graph, prefix: str) -> None:
    """Rename every tensor and node, in inner graphs too."""
    for part in (graph, *graph.subgraphs()):
        made = [value for node in part for value in node.outputs]
        for item in dict.fromkeys((*part.inputs, *part.initializers.values(), *made, *part)):
            if item.name:
                item.name = prefix + item.name


class GraphBuilder:
    """Adds nodes and constants, each under a name that begins with a prefix of its own.

    The operators have the same signature from opset 13 to 23.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._tape = ir.tape.Tape(graph)
        self._prefix = prefix

    def _name(self, what: str) -> str:
        return f"{self._prefix}/{what}_{len(self._tape.nodes) + len(self._tape.initializers)}"

    def constant(self, array: AnyArray | Sequence[int]) -> ir.Value:
        """A constant tensor; whole numbers have 64 bits."""
        tensor = ir.tensor(np.ascontiguousarray(array), name=self._name("constant"))
        return self._tape.initializer(tensor)

    def apply(self, operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One node with one output; None is an input that is left out."""
        name = self._name(operator)
        return self._tape.op(operator, inputs, attributes, name=name, output=ir.val(name))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Another element type, or the very tensor where it has that already."""
        return value if value.dtype is dtype else self.apply("Cast", value, to=dtype)

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Another shape; 0 keeps an axis, -1 takes what is left."""
        return self.apply("Reshape", value, self.constant(shape))

    def part(self, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        """A range of one axis."""
        return self.apply("Slice", value, *(self.constant([n]) for n in (start, stop, axis)))

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Tensors one after the other along an axis."""
        return values[0] if len(values) == 1 else self.apply("Concat", *values, axis=axis)

    def gather(self, value: ir.Value, indices: Sequence[int], axis: int) -> ir.Value:
        """Chosen places of one axis."""
        return self.apply("Gather", value, self.constant(indices), axis=axis)

    def scale(self, value: ir.Value, factor: Float32Array) -> ir.Value:
        """A tensor times a constant that broadcasts."""
        return self.apply("Mul", value, self.constant(factor))

    def largest(self, values: ir.Value, count: int, axis: int) -> tuple[ir.Value, ir.Value]:
        """The largest ``count`` along an axis and their places, the largest first."""
        name = self._name("TopK")
        outputs = [ir.val(f"{name}_values"), ir.val(name)]
        inputs = [values, self.constant([count])]
        self._tape.op_multi_out("TopK", inputs, {"axis": axis}, outputs=outputs, name=name)
        return outputs[0], outputs[1]


def open_model(model: ModelProto, pixels: int = ANY_PIXELS) -> Any:
    """A session on the CPU, with memory for so many; whatever ONNX Runtime raises passes through.

    Raises:
        ValueError: nothing tells how much memory it takes to open it.
    """
    from dyninfer.engines.ort.memory import (  # no PyTorch export needs it
        limited_tensors,
        open_limited,
        tensor_memory,
    )
    from dyninfer.engines.ort.runtime import session_options

    with limited_tensors(tensor_memory(pixels)):
        return open_limited(model.SerializeToString(), session_options(), ["CPUExecutionProvider"])


class Probe:
    """Reads tensors of a model, whether they are fed, stored or computed."""

    def __init__(self, model: ModelProto, names: Collection[str]) -> None:
        self._names = names
        self._stored = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.name in names
        }
        fed = {value.name for value in model.graph.input}
        self._computed = sorted(set(names) - fed - self._stored.keys())
        if self._computed:
            shown = ModelProto()
            shown.CopyFrom(model)
            del shown.graph.output[:]
            shown.graph.output.extend(map(helper.make_empty_tensor_value_info, self._computed))
            self._session = open_model(shown)

    def read(self, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """What the tensors hold for these inputs, by name.

        Raises:
            Exception: ONNX Runtime cannot run the model; its exceptions share no base class.
        """
        known = {**inputs, **self._stored}
        if self._computed:
            values = self._session.run(self._computed, dict(inputs))
            known |= dict(zip(self._computed, values, strict=True))
        return {name: known[name] for name in self._names}


def count_macs(model: ModelProto) -> int:
    """Multiply-accumulates of one image, by shape inference."""
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True)).graph
    return sum(node_macs(node) for node in graph if node.op_type in COUNTED)


def measured_macs(model: ModelProto, image: Float32Array) -> int:
    """Multiply-accumulates of one image, by a run.

    Exported detectors compute shapes in ways that ONNX's shape inference gives up on. Operators of
    inner graphs do not count. ``model`` has one input, for an ``image`` (1, 3, H, W).
    """
    nodes = [node for node in ir.from_proto(model).graph if node.op_type in COUNTED]
    names = {str(value.name) for node in nodes for value in _operands(node)}
    seen = Probe(model, names).read({model.graph.input[0].name: image})
    return sum(node_macs(node, lambda value: seen[str(value.name)].shape) for node in nodes)


def _operands(node: ir.Node) -> list[ir.Value]:
    """The output and the two factors of a counted node."""
    second = 3 if node.op_type.startswith("QLinear") else 1  # behind scale and zero point
    return [v for v in (node.outputs[0], node.inputs[0], node.inputs[second]) if v is not None]


def _declared(value: ir.Value) -> Sequence[int]:
    return [axis if isinstance(axis, int) else 1 for axis in value.shape or ()]


def node_macs(node: ir.Node, shape_of: Callable[[ir.Value], Sequence[int]] = _declared) -> int:
    """Multiply-accumulates of a node of :data:`COUNTED`; open axes count as 1."""
    result, first, second = map(shape_of, _operands(node))
    if "Conv" in node.op_type and node.op_type != "ConvTranspose":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(result) * first[0 if transposed else -1]
