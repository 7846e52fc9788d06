"""ONNX models as graphs that can be changed, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.types import AnyArray, Float32Array


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

    def apply(self, operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """One node with one output."""
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

    def largest(self, values: ir.Value, count: int) -> ir.Value:
        """Places of the largest of ``values`` (K,), the largest first."""
        name = self._name("TopK")
        outputs = [ir.val(f"{name}_values"), ir.val(name)]
        inputs = [values, self.constant([count])]
        self._tape.op_multi_out("TopK", inputs, {"axis": 0}, outputs=outputs, name=name)
        return outputs[1]
