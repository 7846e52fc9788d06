"""Letting a graph that was exported for one batch size take any."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from dyninfer.exporters.cascade.graphs import prune
from dyninfer.exporters.cascade.original import open_model
from dyninfer.types import Float32Array


def loosen_reshapes(model: ModelProto, images: Float32Array) -> ModelProto:
    """Let every Reshape whose target begins with the batch size of the export take any batch.

    The targets are read from a run, since many exporters compute them inside the graph. They are
    constants once the image size is fixed. Whether the result is right is for the caller to try.

    Args:
        model: a stage whose image input is its only input.
        images: a batch (N, 3, H, W) float32 of the size that the detector was exported for.

    Raises:
        Exception: ONNX Runtime cannot run the model; its exceptions share no public base class.
    """
    loosened = ModelProto()
    loosened.CopyFrom(model)
    targets = _reshape_targets(model, images)
    for number, node in enumerate(loosened.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in targets:
            continue
        shape = targets[node.input[1]].copy()
        if shape.size < 2 or shape[0] != len(images):
            continue
        shape[0] = -1 if (shape > 0).all() else 0
        name = f"batch/shape_{number}"
        loosened.graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
    loosened.graph.CopyFrom(prune(loosened.graph, [value.name for value in model.graph.output]))
    return loosened


def _reshape_targets(model: ModelProto, images: Float32Array) -> dict[str, np.ndarray]:
    """The second input of every Reshape, by name."""
    names = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    targets = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in names
    }
    computed = sorted(names - targets.keys())
    if computed:
        shown = ModelProto()
        shown.CopyFrom(model)
        shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed)
        values = open_model(shown).run(computed, {model.graph.input[0].name: images})
        targets |= dict(zip(computed, values, strict=True))
    return targets
