"""float32 -> float16 inside a stage; its inputs and outputs stay float32."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from dyninfer.exporters.precision.extras import require_float16
from dyninfer.exporters.precision.graph import (
    decode_nodes,
    initializers_of,
    is_weighted,
    largest_constant,
    prepared_copy,
)
from dyninfer.exporters.precision.rewrite import bypass, drop_unread, finished, part_outputs

FLOAT16_MAX = float(np.finfo(np.float16).max)
FLOAT16_TINY = float(np.finfo(np.float16).smallest_subnormal)
# Calibration pictures do not show the largest value there will ever be
ACTIVATION_MARGIN = 4.0
_ROUNDING = "_output_cast0"  # how the converter calls the cast behind a kept node

# Sums over many values lose digits or overflow in float16, exponentials overflow from 11 on;
# the rest counts, compares or gives indices, where a rounded value gives another result.
KEPT_OPS = frozenset(
    {
        *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
        *("ReduceLogSum", "ReduceLogSumExp", "GlobalAveragePool", "InstanceNormalization"),
        *("LayerNormalization", "GroupNormalization", "LpNormalization", "CumSum"),
        *("Exp", "Log", "Pow", "Softplus"),
        *("NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "RoiAlign", "GridSample", "Range"),
        *("Upsample", "Min", "Max", "QuantizeLinear", "DequantizeLinear"),
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "EyeLike"),
        *("If", "Loop", "Scan"),
    }
)


def to_fp16(
    model: ModelProto, largest: Mapping[str, float] | None = None, keep: Collection[str] = ()
) -> ModelProto:
    """A stage whose layers compute in float16.

    Kept in float32: the decode (:func:`decode_nodes`), :data:`KEPT_OPS`, nodes with a constant
    beyond float16's range, nodes that read or write a tensor whose measured magnitude comes near
    to it, and ``keep``. Opset and IR version stay as they are.

    Args:
        model: in float32.
        largest: largest magnitude of tensors by name, as calibration pictures show them.
        keep: names of further nodes that stay in float32.

    Raises:
        ExportError: the result does not pass ONNX's checker.
        MissingExtra: onnxconverter-common is not installed.
    """
    convert = require_float16()
    prepared = prepared_copy(model)
    kept = set(keep) | nodes_beyond_float16(prepared, largest or {})
    if len(kept) >= len(prepared.graph.node):
        return finished(prepared, model, "fp16")  # the converter would leave borders half-made
    original = initializers_of(prepared.graph)
    _part_shared_constants(prepared, kept)
    part_outputs(prepared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants rounded to the nearest float16
        converted = convert(
            prepared,
            min_positive_val=FLOAT16_TINY,
            max_finite_val=FLOAT16_MAX,
            keep_io_types=True,
            op_block_list=sorted(KEPT_OPS),
            node_block_list=sorted(kept),
        )
    _join_outputs(converted)
    drop_unread(converted.graph, {"Cast"})
    _restore_resize_scales(converted, original)
    return finished(converted, model, "fp16")


def nodes_beyond_float16(model: ModelProto, largest: Mapping[str, float]) -> set[str]:
    """Names of the nodes that float16 cannot do, for want of range or of digits."""
    initializers = initializers_of(model.graph)
    decode = decode_nodes(model)
    limit = FLOAT16_MAX / ACTIVATION_MARGIN

    def unsafe(node: NodeProto) -> bool:
        touched = [largest.get(name, 0.0) for name in (*node.input, *node.output)]
        return (
            node.op_type in KEPT_OPS
            or node.name in decode
            or not max(touched, default=0.0) <= limit  # a NaN is beyond as well
            or largest_constant(node, initializers) > FLOAT16_MAX
            or _makes_float(node)
            or (node.op_type == "Resize" and not set(node.input[1:]) <= {"", *initializers})
        )

    kept: set[str] = set()
    exact: set[str] = set()  # tensors that kept nodes made
    for node in model.graph.node:
        computed = {name for name in node.input if name and name not in initializers}
        # rounding a sum only to pass it on would lose what was kept
        passes_on = bool(computed) and computed <= exact and not is_weighted(node, initializers)
        if passes_on or unsafe(node):
            kept.add(node.name)
            exact.update(node.output)
    return kept


def _makes_float(node: NodeProto) -> bool:
    """Whether an attribute fixes float32 as the output's type, which the converter overlooks."""
    if node.op_type == "ConstantOfShape":
        return not any(a.name == "value" for a in node.attribute)  # float32 by default
    return node.op_type == "Cast" and any(
        a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute
    )


def _part_shared_constants(model: ModelProto, kept: set[str]) -> None:
    """Give kept nodes constants of their own where others read them too.

    The converter leaves a constant in float32 as soon as one reader is kept, and the other readers
    would then mix types.
    """
    constants = initializers_of(model.graph)
    others = {
        name for node in model.graph.node if node.name not in kept for name in node.input
    } & set(constants)
    made: set[str] = set()
    for node in model.graph.node:
        if node.name not in kept:
            continue
        for position, name in enumerate(node.input):
            if name in others:
                twin = f"{name}_in_float32"
                node.input[position] = twin
                if twin not in made:
                    made.add(twin)
                    model.graph.initializer.add().CopyFrom(constants[name])
                    model.graph.initializer[-1].name = twin


def _join_outputs(model: ModelProto) -> None:
    """Undo :func:`part_outputs`: float32 goes straight to its output, float16 through one cast."""
    graph = model.graph
    for value in graph.output:
        makers = {name: node for node in graph.node for name in node.output}
        cast = makers[value.name]
        if cast.op_type == "Identity":  # the output is no float32 tensor
            bypass(graph, makers, cast, cast.input[0], value.name)
            continue
        passes = makers[cast.input[0]]
        rounded = makers.get(passes.input[0])
        graph.node.remove(passes)
        if rounded is not None and rounded.name.endswith(_ROUNDING) and rounded.op_type == "Cast":
            bypass(graph, makers, cast, rounded.input[0], value.name)
        else:
            cast.input[0] = passes.input[0]


def _restore_resize_scales(model: ModelProto, original: Mapping[str, TensorProto]) -> None:
    """Resize takes its scales in float32 whatever it resizes; the converter does not know."""
    made: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        for position, name in enumerate(node.input):
            if (
                position == 0
                or name not in original
                or original[name].data_type != TensorProto.FLOAT
            ):
                continue
            twin = f"{name}_scales"
            node.input[position] = twin
            if twin not in made:
                made.add(twin)
                model.graph.initializer.add().CopyFrom(original[name])
                model.graph.initializer[-1].name = twin
