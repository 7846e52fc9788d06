"""ONNX models, changed at random but so that they can still be read."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    ModelProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from tests.fuzz.mutation import mutate_bytes

SIZES = (0, 1, 2, 3, 8, -1, 255, 2**20, 2**31, 2**40, 2**62)
OPERATORS = (
    *(
        "Identity",
        "Add",
        "Gather",
        "Reshape",
        "Concat",
        "Expand",
        "ConstantOfShape",
        "Tile",
        "Cast",
    ),
    *("Resize", "Range", "NonZero", "If", "Loop", "Scan", "Shape", "Sqrt", "ArgMax", "TopK", "Pad"),
    *("Slice", "Conv", "ReduceMean", "NonMaxSuppression", "SequenceEmpty", "Optional", "Nothing"),
)
NAMES = ("", "images", "value", "easiness", "boxes_xyxy", "class_scores", "a" * 300, "\x1b[1m", "/")


def mutate_model(rng: Random, data: bytes, *, large: bool) -> bytes:
    """A model in which one to four things are others; at times only its bytes are.

    ``large`` is whether it may ask for more memory than there is.
    """
    if rng.random() < 0.15:
        return mutate_bytes(rng, data)
    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice((*_CHANGES, _make_large) if large else _CHANGES)(rng, model)
    return bytes(model.SerializeToString())


def _port(rng: Random, model: ModelProto) -> ValueInfoProto | None:
    ports = [*model.graph.input, *model.graph.output, *model.graph.output]
    return rng.choice(ports) if ports else None


def _other_type(rng: Random, model: ModelProto) -> None:
    """A declared type that the graph does not make, or that it now makes."""
    if port := _port(rng, model):
        kind = rng.choice(list(TensorProto.DataType.values()))
        if rng.random() < 0.5 and port in list(model.graph.output):
            for node in model.graph.node:
                node.output[:] = [n + "_" if n == port.name else n for n in node.output]
            cast = helper.make_node("Cast", [port.name + "_"], [port.name], to=kind)
            model.graph.node.append(cast)
        if rng.random() < 0.7:
            port.type.tensor_type.elem_type = kind


def _other_shape(rng: Random, model: ModelProto) -> None:
    if not (port := _port(rng, model)):
        return
    shape = port.type.tensor_type.shape
    match rng.randrange(4):
        case 0:
            port.type.tensor_type.ClearField("shape")
        case 1:
            shape.dim.add().dim_value = rng.choice(SIZES)
        case 2 if shape.dim:
            del shape.dim[rng.randrange(len(shape.dim))]
        case _ if shape.dim:
            axis = rng.choice(shape.dim)
            if rng.random() < 0.5:
                axis.dim_param = rng.choice(("batch", "n", ""))
            else:
                axis.dim_value = rng.choice(SIZES)


def _rename(rng: Random, model: ModelProto) -> None:
    if port := _port(rng, model):
        port.name = rng.choice(NAMES)


def _change_node(rng: Random, model: ModelProto) -> None:
    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    match rng.randrange(6):
        case 0:
            model.graph.node.remove(node)
        case 1:
            node.op_type = rng.choice(OPERATORS)
        case 2:
            node.domain = rng.choice(("", "ai.onnx.ml", "com.microsoft", "someone.else"))
        case 3 if node.input:
            made = [name for other in model.graph.node for name in other.output]
            node.input[rng.randrange(len(node.input))] = rng.choice([*made, *NAMES])
        case 4:
            model.graph.node.append(node)
        case _ if node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice(NAMES)


def _change_attribute(rng: Random, model: ModelProto) -> None:
    having = [node for node in model.graph.node if node.attribute]
    if not having:
        return
    attribute = rng.choice(rng.choice(having).attribute)
    attribute.i = rng.choice(SIZES)
    attribute.f = rng.choice((0.0, 1e38, float("nan")))
    attribute.ints[:] = [rng.choice(SIZES) for _ in attribute.ints]
    if rng.random() < 0.2:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))


def _change_constant(rng: Random, model: ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    if tensor.external_data and rng.random() < 0.7:
        entry = rng.choice(tensor.external_data)
        entry.value = rng.choice((*map(str, SIZES), "-4", "4", "1e3", "", "weights.bin", "x" * 300))
        return
    match rng.randrange(5):
        case 0:
            tensor.data_type = rng.choice([*TensorProto.DataType.values(), 99, -1])
        case 1:
            tensor.dims[:] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
        case 2:
            tensor.raw_data = mutate_bytes(rng, tensor.raw_data)
        case 3:
            broken = np.array([rng.choice((np.nan, np.inf, -5, 7, 1e38))], np.float32)
            tensor.raw_data = broken.tobytes() * (len(tensor.raw_data) // 4)
        case _:
            place = rng.choice(("/etc/passwd", "../bundle.json", "x.data", "/dev/zero", ".", ""))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", place), ("offset", "0"), ("length", "9" * 12)):
                tensor.external_data.add(key=key, value=value)


def _make_large(rng: Random, model: ModelProto) -> None:
    """A small file that asks for a lot: one operator's size is a constant, or known in a run."""
    graph = model.graph
    size = rng.choice((2**20, 2**30, 2**34, 2**40))
    constants = {"size": np.array([size], np.float32), "some": np.array([0.5], np.float32)}
    constants |= {"from": np.array([0]), "axis": np.array([1, 1, 1, -1])}
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    counted = "size"
    nodes = []
    if graph.input and rng.random() < 0.6:
        image = graph.input[0].name
        nodes.append(helper.make_node("ReduceMax", [image], ["most"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["most", "size"], ["counted"]))
        counted = "counted"
    nodes.append(helper.make_node("Cast", [counted], ["huge"], to=TensorProto.INT64))
    match rng.randrange(6):
        case 0:
            nodes.append(helper.make_node("ConstantOfShape", ["huge"], ["many"]))
        case 1:
            nodes.append(helper.make_node("Expand", ["some", "huge"], ["many"]))
        case 2:
            nodes.append(helper.make_node("Tile", ["some", "huge"], ["many"]))
        case 3:
            nodes.append(helper.make_node("Concat", ["from", "huge"], ["pads"], axis=0))
            nodes.append(helper.make_node("Pad", ["some", "pads"], ["many"]))
        case 4:
            nodes.append(helper.make_node("Reshape", ["some", "axis"], ["picture"]))
            nodes.append(helper.make_node("Concat", ["one_", "huge"], ["sizes"], axis=0))
            graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1]), "one_"))
            nodes.append(helper.make_node("Resize", ["picture", "", "", "sizes"], ["many"]))
        case _:
            nodes.append(helper.make_node("Expand", ["some", "huge"], ["row"]))
            nodes.append(helper.make_node("Reshape", ["row", "tall"], ["column"]))
            graph.initializer.append(numpy_helper.from_array(np.array([-1, 1]), "tall"))
            nodes.append(helper.make_node("Mul", ["row", "column"], ["many"]))
    made = "many"
    if rng.random() < 0.4:  # an operator that collects what it finds, beside its tensors
        nodes.append(helper.make_node(rng.choice(("NonZero", "Unique")), ["many"], ["found"]))
        nodes.append(helper.make_node("Cast", ["found"], ["places"], to=TensorProto.FLOAT))
        made = "places"
    nodes.append(helper.make_node("ReduceMax", [made], ["one"], keepdims=0))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    if graph.output and rng.random() < 0.8:
        name = graph.output[0].name
        for node in graph.node:
            node.output[:] = [n + "_" if n == name else n for n in node.output]
        graph.node.append(helper.make_node("Add", [name + "_", "one"], [name]))


def _nest(rng: Random, model: ModelProto) -> None:
    """Graphs in graphs."""
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    for _ in range(rng.choice((1, 3, 40))):
        branches = {"then_branch": inner, "else_branch": inner}
        outputs = [value.name for value in inner.output]
        node = helper.make_node("If", [rng.choice(NAMES)], outputs, **branches)
        inner = helper.make_graph([node], "nested", [], list(model.graph.output))
        if inner.ByteSize() > 100_000:
            break
    model.graph.node.extend(inner.node)


def _change_head(rng: Random, model: ModelProto) -> None:
    match rng.randrange(4):
        case 0:
            model.ir_version = rng.choice((0, 1, 3, 8, 99, 2**40))
        case 1:
            model.opset_import.add(
                domain=rng.choice(("", "x")), version=rng.choice((-1, 1, 11, 99))
            )
        case 2:
            model.metadata_props.add(key=rng.choice(("names", "imgsz", "x")), value="{0: [[" * 9)
        case _:
            del model.opset_import[:]


_CHANGES: tuple[Callable[[Random, ModelProto], None], ...] = (
    *(_other_type, _other_shape, _rename, _change_node, _change_node, _change_attribute),
    *(_change_constant, _nest, _change_head),
)
