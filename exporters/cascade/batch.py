"""Letting a graph that was exported for one batch size take any."""

from __future__ import annotations

from onnx import ModelProto
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dyninfer.exporters.graphs import GraphBuilder, closed, editable
from dyninfer.exporters.probe import Probe
from dyninfer.types import Float32Array


def loosen_reshapes(model: ModelProto, images: Float32Array) -> ModelProto:
    """Let every Reshape whose target begins with the batch size of the export take any batch.

    The targets are read from a run, since many exporters compute them inside the graph. They are
    constants once the image size is fixed. Whether the result is right is for the caller to try.
    ``images`` are a batch (N, 3, H, W) float32 of the size that the detector was exported for.

    Raises:
        Exception: ONNX Runtime cannot run the model; its exceptions share no public base class.
    """
    stage = editable(model)
    builder = GraphBuilder(stage.graph, "batch")
    targets = {
        node: str(node.inputs[1].name)
        for node in stage.graph
        if node.op_type == "Reshape" and node.inputs[1] is not None
    }
    seen = Probe(model, {*targets.values()}).read({model.graph.input[0].name: images})
    for node, target in targets.items():
        shape = seen[target].copy()
        if shape.size < 2 or shape[0] != len(images):
            continue
        shape[0] = -1 if (shape > 0).all() else 0
        node.replace_input_with(1, builder.constant(shape))
    RemoveUnusedNodesPass()(stage)
    return closed(stage)
