"""What a chooser of image sizes reads: the detector's own first layers, on the halved picture.

They cost little there, and what they see says how much of the picture a small size would lose.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.bundle.manifest import BATCH_AXIS, CHOICE_SCORES
from dyninfer.errors import RouterError
from dyninfer.exporters.graphs import GraphBuilder, Probe, closed, editable, open_model
from dyninfer.types import Float32Array, Float64Array

_STRIDE, _NEXT = 8, 16
FEATURES = "features"


def cut_trunk(path: Path, what: str) -> ModelProto:
    """The first layers of a branch's stage: its image (N, 3, H, W) -> ``features`` (N, F).

    They go up to the last map of an eighth of the image's sides that leads to those of a
    sixteenth; its channels are averaged. The image is halved first, where the layers take that.

    Args:
        path: the stage's file.
        what: the stage, for the message.

    Raises:
        RouterError: there are no such maps.
    """
    model = onnx.load(str(path))
    image = model.graph.input[0]
    axes = image.type.tensor_type.shape.dim
    black = np.zeros((1, *(axis.dim_value for axis in axes[1:])), np.float32)
    found = _last_map(model, black)
    if found is None:
        raise RouterError(
            f"{what} has no feature maps of {_STRIDE} and {_NEXT} pixels per cell, from which a "
            "chooser of image sizes is made; export one size of it, or a cascade"
        )
    halved = _cut(model, found, halved=True)
    return halved if _runs(halved, image.name, black) else _cut(model, found, halved=False)


def _runs(model: ModelProto, image: str, black: Float32Array) -> bool:
    try:
        open_model(model).run(None, {image: black})
    except Exception:  # ONNX Runtime's exceptions share no public base class
        return False  # sizes stand in the graph
    return True


def _last_map(model: ModelProto, image: Float32Array) -> str | None:
    """The map of an eighth of the sides from which the first of a sixteenth is made."""
    nodes = list(editable(model).graph)
    names = [str(value.name) for node in nodes for value in node.outputs if value.name]
    seen = Probe(model, names).read({model.graph.input[0].name: image})
    wanted, later = (
        tuple(math.ceil(side / stride) for side in image.shape[2:]) for stride in (_STRIDE, _NEXT)
    )

    def is_map(value: ir.Value | None, sides: tuple[int, ...]) -> bool:
        array = None if value is None else seen.get(str(value.name))
        return array is not None and array.ndim == 4 and array.shape[2:] == sides

    start = next((node for node in nodes if is_map(node.outputs[0], later)), None)
    queue = [] if start is None else [start]
    while queue:
        node = queue.pop(0)
        for value in node.inputs:
            if value is not None and is_map(value, wanted):
                return str(value.name)
            producer = None if value is None else value.producer()
            if producer is not None:
                queue.append(producer)
    return None


def _cut(model: ModelProto, found: str, *, halved: bool) -> ModelProto:
    stage = editable(model)
    graph = stage.graph
    (whole,) = graph.inputs
    name, shape = str(whole.name), whole.shape
    builder = GraphBuilder(graph, "chooser")
    image = ir.val(name, ir.DataType.FLOAT, shape)
    graph.inputs[:] = [image]
    whole.name = "chooser/image"
    half = {"kernel_shape": [2, 2], "strides": [2, 2]}
    whole.replace_all_uses_with(builder.apply("AveragePool", image, **half) if halved else image)
    values = (value for node in graph for value in node.outputs)
    last = next(value for value in values if value.name == found)
    pooled = builder.apply("GlobalAveragePool", builder.apply("Cast", last, to=ir.DataType.FLOAT))
    features = builder.apply("Flatten", pooled, axis=1)
    features.name = FEATURES
    return _closed(stage, name, features)


def _closed(stage: ir.Model, image: str, output: ir.Value) -> ModelProto:
    """What leads from the image to one output, as a model of its own."""
    output.type = ir.TensorType(ir.DataType.FLOAT)
    stage.graph.outputs[:] = [output]
    stage.graph.sort()
    cut = ir.Model(
        ir.convenience.extract(stage.graph, [image], [str(output.name)]),
        ir_version=stage.ir_version,
        producer_name="dyninfer",
        functions=tuple(stage.functions.values()),
    )
    return closed(cut)


def with_scores(trunk: ModelProto, weights: Float64Array, centre: Float64Array) -> ModelProto:
    """The chooser: image -> ``choice_scores`` (N, branches), linear in the centred features.

    Args:
        trunk: made by :func:`cut_trunk`.
        weights: (F + 1, branches), the last row what is added.
        centre: (F,) subtracted first, which keeps float32 sums of many features exact.
    """
    stage = editable(trunk)
    builder = GraphBuilder(stage.graph, "scores")
    (features,) = stage.graph.outputs
    centred = builder.apply("Sub", features, builder.constant(centre.astype(np.float32)))
    product = builder.apply("MatMul", centred, builder.constant(weights[:-1].astype(np.float32)))
    scores = builder.apply("Add", product, builder.constant(weights[-1].astype(np.float32)))
    scores.name, scores.shape = CHOICE_SCORES, ir.Shape((BATCH_AXIS, weights.shape[1]))
    return _closed(stage, str(stage.graph.inputs[0].name), scores)
