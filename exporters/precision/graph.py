"""Reading and preparing a stage's graph before its precision is changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from dyninfer.errors import ExportError

FINAL_OUTPUTS = ("boxes_xyxy", "class_scores", "logits", "easiness")
"""What a stage computes for the host. How these are made from a network's raw numbers stays in
float32: boxes are pixels up to 1280, which float16 can tell apart only by a whole one."""

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
SUMS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "GlobalAveragePool"}
    | {"GlobalMaxPool"}
)
# a weight of fewer numbers, such as the bins of a distribution over box sides, is arithmetic of
# the decode and no layer of the network
MIN_WEIGHTS = 34
MIN_OPSET = 13  # the first with one scale for every channel
STANDARD_DOMAINS = ("", "ai.onnx")


def opset_of(model: ModelProto) -> int:
    """Version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=0)


def prepared_copy(model: ModelProto) -> ModelProto:
    """A copy whose nodes have unique names, constants are initializers, and types are inferred.

    Raises:
        ExportError: the operators are of an opset that is too old, or types cannot be inferred.
    """
    if opset_of(model) < MIN_OPSET:
        raise ExportError(
            f"a stage has opset {opset_of(model)}, other precisions need {MIN_OPSET} or later; "
            "export the bundle again"
        )
    copy = ModelProto()
    copy.CopyFrom(model)
    _constants_to_initializers(copy.graph)
    _name_nodes(copy.graph)
    del copy.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the types in a stage's graph cannot be inferred: {reason}") from None


def _constants_to_initializers(graph: GraphProto) -> None:
    """Turn tensor constants into initializers, which the converters know how to treat.

    So are weights that the file stores in half precision and casts: the converters would take it
    for converted already.
    """
    for node in [n for n in graph.node if n.op_type == "Constant"]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            graph.node.remove(node)
    _fold_casts_of_weights(graph)


def _fold_casts_of_weights(graph: GraphProto) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    folded = set()
    for node in [n for n in graph.node if n.op_type == "Cast" and n.input[0] in stored]:
        wanted = next(a.i for a in node.attribute if a.name == "to")
        if wanted == TensorProto.FLOAT:
            values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            graph.node.remove(node)
            folded.add(node.input[0])
    for name in folded - set(_read_names(graph)):
        graph.initializer.remove(stored[name])


def _read_names(graph: GraphProto) -> Iterator[str]:
    """Everything that is read in a graph, the graphs inside its nodes included."""
    yield from (output.name for output in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _read_names(inner) if inner.node else ()


def _name_nodes(graph: GraphProto) -> None:
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}_"
        taken.add(node.name)


def initializers_of(graph: GraphProto) -> dict[str, TensorProto]:
    """Name -> initializer."""
    return {tensor.name: tensor for tensor in graph.initializer}


def is_weighted(node: NodeProto, initializers: Mapping[str, TensorProto]) -> bool:
    """Whether a node is a layer of a network: a convolution or a matrix product."""
    if node.op_type not in WEIGHTED_OPS:
        return False
    weights = [math.prod(initializers[name].dims) for name in node.input if name in initializers]
    return not weights or max(weights) >= MIN_WEIGHTS


def layers_of(model: ModelProto) -> list[NodeProto]:
    """The weighted nodes in the order they run."""
    initializers = initializers_of(model.graph)
    return [node for node in model.graph.node if is_weighted(node, initializers)]


def decode_nodes(model: ModelProto, ends: Iterable[str] = FINAL_OUTPUTS) -> frozenset[str]:
    """Names of the nodes that make the final outputs out of what the last layers computed.

    These are the nodes that a final output depends on and no layer does. A stage that ends in
    features has none.
    """
    initializers = initializers_of(model.graph)
    outputs = {value.name for value in model.graph.output}
    wanted = {name for name in ends if name in outputs}
    feeds_layer: set[str] = set()
    decode: set[str] = set()
    for node in reversed(model.graph.node):  # the checker guarantees topological order
        reads = [name for name in node.input if name]
        if is_weighted(node, initializers) or feeds_layer.intersection(node.output):
            feeds_layer.update(reads)
        elif wanted.intersection(node.output):
            decode.add(node.name)
            wanted.update(reads)
    return frozenset(decode)


def summary_nodes(model: ModelProto) -> frozenset[str]:
    """Names of the nodes that sum over whole tensors, and of what follows, where no layer follows.

    They make what a router reads: few and exact numbers, which nothing is gained by rounding.
    """
    behind: set[str] = set()
    summaries: set[str] = set()
    unread_by_layers = decode_nodes(model, (value.name for value in model.graph.output))
    for node in model.graph.node:
        sums = node.op_type in SUMS or behind.intersection(node.input)
        if sums and node.name in unread_by_layers:
            behind.update(node.output)
            summaries.add(node.name)
    return frozenset(summaries)


def end_layers(model: ModelProto) -> frozenset[str]:
    """Names of the layers that the decode reads directly: the raw predictions."""
    decode = decode_nodes(model)
    read = {name for node in model.graph.node if node.name in decode for name in node.input}
    return frozenset(node.name for node in layers_of(model) if read.intersection(node.output))


def silu_inputs(model: ModelProto) -> frozenset[str]:
    """Names of the tensors x that are read by x * sigmoid(x) and by nothing else."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    found = set()
    for sigmoid in (node for node in model.graph.node if node.op_type == "Sigmoid"):
        (x,), (gate,) = sigmoid.input, sigmoid.output
        products = [node for node in readers[x] if node is not sigmoid]
        if (
            len(products) == 1
            and products[0].op_type == "Mul"
            and sorted(products[0].input) == sorted((x, gate))
            and readers.get(gate) == products
            and not outputs & {x, gate}
        ):
            found.add(x)
    return frozenset(found)


def macs_by_layer(model: ModelProto) -> dict[str, int]:
    """Multiply-accumulates of every weighted node of one image, batch axis as 1."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in _values(model.graph)}
    initializers = initializers_of(model.graph)
    found = {}
    for node in layers_of(model):
        size = math.prod(axis.dim_value or 1 for axis in shapes.get(node.output[0], ()))
        weights = next((initializers[n].dims for n in node.input if n in initializers), [1])
        inner = math.prod(weights[1:]) if node.op_type == "Conv" else weights[0]
        found[node.name] = size * inner
    return found


def _values(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def float_tensors(model: ModelProto) -> set[str]:
    """Names of all float32 tensors that are computed or fed, constants left out."""
    constants = initializers_of(model.graph)
    return {
        value.name
        for value in _values(model.graph)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants
    }


def largest_constant(node: NodeProto, initializers: dict[str, TensorProto]) -> float:
    """Largest magnitude among a node's float32 constants; 0 where it has none."""
    tensors = [initializers[name] for name in node.input if name in initializers]
    tensors += [a.t for a in node.attribute if a.HasField("t")]
    largest = 0.0
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            largest = max(largest, float(abs(values).max()) if values.size else 0.0)
    return largest
