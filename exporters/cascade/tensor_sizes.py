"""How large a model's tensors are, before anything makes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.arithmetic import tensors_of

LARGEST_TENSOR = 1 << 30  # bytes; at 1280x1280 a detector's largest has 0.1 GB
_SMALL = 1024  # numbers in a constant that may be a shape


def check_tensor_sizes(model: ModelProto, path: Path) -> None:
    """Refuse a model in which a tensor of a known shape is larger than any detector needs.

    ONNX Runtime computes what is constant when it opens a file: a few bytes say ``ones(10^6,
    10^6)``. What shape inference cannot tell, only a limit on memory can stop.

    Raises:
        CheckpointError: a tensor has more than :data:`LARGEST_TENSOR` bytes.
    """
    for tensor in (*_inferred(model), *model.graph.input):
        size = _bytes_of(tensor)
        if size > LARGEST_TENSOR:
            shape = "x".join(str(axis.dim_value or 1) for axis in tensor.type.tensor_type.shape.dim)
            raise CheckpointError(
                f"{path} makes the tensor {tensor.name!r} of {shape[:100]}, {size / 2**30:.3g} GB, "
                f"expected at most {LARGEST_TENSOR / 2**30:g} GB; export it for smaller images"
            )


def check_weights(model: ModelProto, path: Path) -> None:
    """Refuse a model in which a stored tensor says that it has more values than it can hold.

    What infers shapes walks over as many as are said.

    Raises:
        CheckpointError: a byte would hold more than eight values.
    """
    for part in (model.graph, *model.functions):
        for tensor in tensors_of(part):
            said = math.prod(tensor.dims)
            if tensor.data_type and said > 8 * tensor.ByteSize():
                raise CheckpointError(
                    f"{path} says that its tensor {tensor.name!r} has {said:,} values and holds "
                    "far fewer; the file is damaged, export it again"
                )


def _bytes_of(tensor: ValueInfoProto) -> int:
    """Bytes for a batch of one; axes that are open count as 1."""
    kind = tensor.type.tensor_type
    numbers: int = math.prod(max(1, axis.dim_value) for axis in kind.shape.dim)
    known = kind.elem_type in helper.get_all_tensor_dtypes()
    return numbers * (int(helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize) if known else 1)


def _inferred(model: ModelProto) -> Iterator[ValueInfoProto]:
    """Every tensor whose shape can be told, in inner graphs too."""
    try:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    except Exception:  # a broken model is for ONNX Runtime to refuse, with its reason
        return
    graphs = [graph]
    while graphs:
        graph = graphs.pop()
        yield from (*graph.value_info, *graph.output)
        graphs += (a.g for node in graph.node for a in node.attribute if a.HasField("g"))


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which large constants are inputs, which costs no copy of them."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = "shapes"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    fed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in fed:
            kind = tensor.data_type or TensorProto.FLOAT
            graph.input.append(helper.make_tensor_value_info(tensor.name, kind, tensor.dims))
    return light
