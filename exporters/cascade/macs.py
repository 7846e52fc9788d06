"""Multiply-accumulates of a stage whose shapes no inference may know: they are measured."""

from __future__ import annotations

import math

from onnx import ModelProto, helper

from dyninfer.exporters.cascade.original import open_model
from dyninfer.types import Float32Array


def measured_macs(model: ModelProto, image: Float32Array) -> int:
    """Multiply-accumulates of one image: convolutions and matrix products.

    Every such operator's inputs and output are read from a run of the model, because exported
    detectors compute shapes in ways that ONNX's shape inference gives up on. Operators of inner
    graphs do not count.

    Args:
        model: a stage.
        image: (1, 3, H, W) float32.
    """
    nodes = [
        n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    ]
    shown = ModelProto()
    shown.CopyFrom(model)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = {name for node in nodes for name in (*node.input[:2], node.output[0])}
    wanted -= weights.keys() | {value.name for value in model.graph.input}
    known = {value.name for value in model.graph.output}
    shown.graph.output.extend(
        helper.make_empty_tensor_value_info(n) for n in sorted(wanted - known)
    )
    input_name = model.graph.input[0].name
    names = sorted(wanted)
    values = open_model(shown).run(names, {input_name: image}) if names else []
    shapes = weights | {n: v.shape for n, v in zip(names, values, strict=True)}
    shapes[input_name] = image.shape
    total = 0
    for node in nodes:
        result, first, second = shapes[node.output[0]], shapes[node.input[0]], shapes[node.input[1]]
        if node.op_type == "Conv":
            total += math.prod(result) * math.prod(second[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(first) * math.prod(second[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(result) * first[0 if transposed else -1]
    return total
