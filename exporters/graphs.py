"""ONNX models as graphs that can be changed, and back."""

from __future__ import annotations

import onnx_ir as ir
from onnx import ModelProto


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
