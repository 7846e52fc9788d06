"""Writing ONNX nodes: only operators whose signature is the same from opset 13 to 23."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NewType

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

Value = NewType("Value", str)
"""Name of a tensor inside a graph."""


class GraphBuilder:
    """Collects nodes and constants, each under a name that nothing else in the graph has."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._prefix = prefix

    def _name(self, what: str) -> Value:
        return Value(f"{self._prefix}/{what}_{len(self.nodes) + len(self.initializers)}")

    def constant(self, array: npt.NDArray[Any]) -> Value:
        """A constant tensor."""
        name = self._name("constant")
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def apply(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """One node with one output."""
        name = self._name(operator)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def name_output(self, value: Value, name: str) -> None:
        """Give a tensor the name of an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name} out"))

    def cast(self, value: Value, elem_type: int) -> Value:
        """Another element type."""
        return self.apply("Cast", value, to=elem_type)

    def transpose(self, value: Value, axes: Sequence[int]) -> Value:
        """Axes in another order."""
        return self.apply("Transpose", value, perm=list(axes))

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Another shape; 0 keeps an axis, -1 takes what is left."""
        return self.apply("Reshape", value, self.constant(np.array(shape, np.int64)))

    def part(self, value: Value, axis: int, start: int, stop: int) -> Value:
        """A range of one axis."""
        ends = [self.constant(np.array([n], np.int64)) for n in (start, stop, axis)]
        return self.apply("Slice", value, *ends)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Tensors one after the other along an axis."""
        return values[0] if len(values) == 1 else self.apply("Concat", *values, axis=axis)

    def gather(self, value: Value, indices: Sequence[int], axis: int) -> Value:
        """Chosen places of one axis."""
        return self.apply("Gather", value, self.constant(np.array(indices, np.int64)), axis=axis)

    def scale(self, value: Value, factor: npt.NDArray[np.float32]) -> Value:
        """A tensor times a constant that broadcasts."""
        return self.apply("Mul", value, self.constant(factor))

    def largest(self, values: Value, count: int) -> Value:
        """Places of the largest of ``values`` (K,), the largest first."""
        name = self._name("TopK")
        inputs = [values, self.constant(np.array([count], np.int64))]
        outputs = [f"{name}_values", name]
        self.nodes.append(helper.make_node("TopK", inputs, outputs, name=name, axis=0))
        return name
