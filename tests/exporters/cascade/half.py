"""What converters to float16 and quantisers leave of a float32 file, made by hand."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_BLOCKED = ("Resize", "TopK", "Range", "Upsample", "NonMaxSuppression")


def halve(path: Path, *, io: bool = False, blocked: Collection[str] = _BLOCKED) -> Path:
    """Turn a file's floats into float16, as common converters do: casts stand at the end.

    Inputs and outputs stay float32 unless ``io``. ``blocked`` operators compute in float32 between
    casts, which stand at the end, too.
    """
    model = onnx.load(str(path))
    graph = model.graph
    known = onnx.shape_inference.infer_shapes(model).graph
    typed = (*known.value_info, *known.input, *known.output)
    floats = {v.name for v in typed if v.type.tensor_type.elem_type == FLOAT}
    floats |= {t.name for t in graph.initializer if t.data_type == FLOAT}
    casts: list[onnx.NodeProto] = []

    def cast(source: str, target: str, to: int) -> None:
        name = f"graph_cast_{len(casts)}"
        casts.append(helper.make_node("Cast", [source], [target], name=name, to=to))

    kept = {n for node in graph.node if node.op_type in blocked for n in node.input}
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT and tensor.name not in kept:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    outer = {value.name: f"{value.name}_half" for value in (*graph.input, *graph.output)}
    outer = {name: inner for name, inner in outer.items() if name in floats}
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in blocked:
            for place, name in enumerate(node.input):
                if name in floats and name not in stored:
                    node.input[place] = f"{name}_float_{len(casts)}"
                    cast(name, node.input[place], FLOAT)
            for place, name in enumerate(node.output):
                if name in floats:
                    node.output[place] = f"{name}_float_{len(casts)}"
                    cast(node.output[place], name, HALF)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == FLOAT:
                attribute.i = HALF
    for value in (*graph.input, *graph.output):
        if value.name in floats and io:
            value.type.tensor_type.elem_type = HALF
    if not io:
        for node in (*graph.node, *casts):
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    names[place] = outer.get(name, name)
        for value in graph.input:
            if value.name in outer:
                cast(value.name, outer[value.name], HALF)
        for value in graph.output:
            if value.name in outer:
                cast(outer[value.name], value.name, FLOAT)
    del graph.value_info[:]
    graph.node.extend(casts)
    path.write_bytes(model.SerializeToString())
    return path
