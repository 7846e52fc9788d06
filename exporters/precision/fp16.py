"""float32 -> float16 inside a stage; its inputs and outputs stay float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, version_converter

from dyninfer.errors import ExportError
from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.graph import (
    DEQUANTIZE,
    QUANTIZERS,
    computed_inputs,
    constants_of,
    decode_nodes,
    finished,
    is_weighted,
    opened,
    touched,
)
from dyninfer.foreign_errors import reason_of

FLOAT16_MAX = float(np.finfo(np.float16).max)
FLOAT16_TINY = float(np.finfo(np.float16).smallest_subnormal)
# Calibration pictures do not show the largest value there will ever be
ACTIVATION_MARGIN = 4.0

# Sums over many values lose digits or overflow in float16, exponentials overflow from 11 on;
# the rest counts, compares or gives indices, where a rounded value gives another result.
KEPT_OPS = frozenset(
    {
        *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"),
        *("ReduceLogSum", "ReduceLogSumExp", "GlobalAveragePool", "InstanceNormalization"),
        *("LayerNormalization", "GroupNormalization", "LpNormalization", "CumSum"),
        *("Exp", "Log", "Pow", "Softplus"),
        *("NonMaxSuppression", "TopK", "ArgMax", "ArgMin", "RoiAlign", "GridSample", "Range"),
        *("Upsample", "Min", "Max"),
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "EyeLike"),
        *("If", "Loop", "Scan"),
    }
)
HALF_SCALES_OPSET, _ITS_IR_VERSION = 19, 9
"""The first opset, and the format of its time, in which :data:`QUANTIZERS` take float16."""
LARGEST_INT8 = 128
SCALE_ROUNDING = 2.0**-9  # moves the outermost of the 8-bit steps by a quarter of a step


def to_fp16(
    model: ModelProto,
    largest: Mapping[str, float] | None = None,
    *,
    half_scales: bool = False,
) -> ModelProto | None:
    """A stage whose layers compute in float16, or None where nothing in it can.

    Kept in float32: the decode (:func:`decode_nodes`), :data:`KEPT_OPS`, nodes with a constant
    beyond float16's range, and nodes that read or write a tensor whose measured magnitude comes
    near to it. Opset and IR version stay as they are. ``largest`` are magnitudes of tensors by
    name, as calibration pictures show them. What quantises and dequantises stays, too, without
    ``half_scales``, which its opset must allow.

    Raises:
        ExportError: the result does not pass ONNX's checker.
    """
    stage = opened(model)
    graph = stage.graph
    kept = nodes_beyond_float16(graph, largest or {}, half_scales=half_scales)
    half = {node for node in graph if node not in kept}
    computed = [value for node in graph for value in node.outputs]
    changed = [
        _convert(graph, value, half)
        for value in (*graph.inputs, *graph.initializers.values(), *computed)
        if value.type == ir.TensorType(ir.DataType.FLOAT)
    ]
    return finished(stage, model, "fp16") if any(changed) else None


def half_around_int8(model: ModelProto, largest: Mapping[str, float]) -> ModelProto:
    """A stage of ``to_int8`` in which what is not in 8 bits is in float16, scales included.

    What :func:`to_fp16` keeps in float32 stays so here, and so does a layer with a scale that
    float16 cannot hold, with all that it dequantises. ``largest`` are magnitudes of tensors as they
    were before the stage was quantised.

    Raises:
        ExportError: the stage cannot be raised to the opset whose scales may be float16.
    """
    if all(node.op_type not in QUANTIZERS for node in model.graph.node):
        return to_fp16(model, largest) or model
    raised = model
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets[""] < HALF_SCALES_OPSET:
        try:
            raised = version_converter.convert_version(model, HALF_SCALES_OPSET)
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                f"float16 around 8 bits takes opset {HALF_SCALES_OPSET}, to which the stage cannot "
                f"be raised: {reason_of(error)}; leave float32 there (--io fp32)"
            ) from None
    raised.ir_version = max(raised.ir_version, _ITS_IR_VERSION)
    return to_fp16(raised, largest, half_scales=True) or model


def nodes_beyond_float16(
    graph: ir.Graph, largest: Mapping[str, float], *, half_scales: bool
) -> set[ir.Node]:
    """The nodes that float16 cannot do, for want of range or of digits."""
    decode = decode_nodes(graph)
    limit = FLOAT16_MAX / ACTIVATION_MARGIN

    def unsafe(node: ir.Node) -> bool:
        return (
            node.op_type in KEPT_OPS
            or node in decode
            or (node.op_type in QUANTIZERS and not (half_scales and _holds_scale(node)))
            # a layer and what it dequantises are one kernel, in one type
            or any(maker in kept for maker in _dequantisers(node))
            # a NaN is beyond as well
            or not all(largest.get(name, 0.0) <= limit for name in touched(node))
            or any(_largest(tensor) > FLOAT16_MAX for tensor in constants_of(node))
            or _makes_float(node)
            or (node.op_type == "Resize" and computed_inputs(node) != [node.inputs[0]])
        )

    kept = set[ir.Node]()
    exact: set[ir.Value] = set()  # tensors that kept nodes made
    for node in graph:
        computed = computed_inputs(node)
        # rounding a sum only to pass it on would lose what was kept
        passes_on = bool(computed) and exact.issuperset(computed) and not is_weighted(node)
        if passes_on or unsafe(node):
            kept.update([node, *_dequantisers(node)])
            if node.op_type not in QUANTIZERS:  # in 8 bits nothing is exact
                exact.update(node.outputs)
    return kept


def _dequantisers(node: ir.Node) -> list[ir.Node]:
    """What dequantises for this node, and in files that are not TensorRT's for others, too."""
    return [maker for maker in node.predecessors() if maker.op_type == DEQUANTIZE]


def _holds_scale(node: ir.Node) -> bool:
    """Whether float16 holds the scales of a node, and the largest numbers that they stand for."""
    stored = None if node.inputs[1] is None else node.inputs[1].const_value
    if stored is None:
        return False
    exact = stored.numpy().astype(np.float64)
    rounded = exact.astype(np.float16).astype(np.float64)
    holds = np.abs(rounded - exact) <= SCALE_ROUNDING * np.abs(exact)
    return bool((holds & (LARGEST_INT8 * rounded <= FLOAT16_MAX)).all())


def _largest(tensor: ir.TensorProtocol) -> float:
    """Largest magnitude of a float32 tensor; 0 for other types."""
    if tensor.dtype is not ir.DataType.FLOAT:
        return 0.0
    return float(np.abs(tensor.numpy()).max(initial=0.0))


def _makes_float(node: ir.Node) -> bool:
    """Whether a node's float32 output does not follow from float32 inputs."""
    reads = any(value is not None and value.dtype is ir.DataType.FLOAT for value in node.inputs)
    makes = any(value.dtype is ir.DataType.FLOAT for value in node.outputs)
    return makes and (node.op_type == "Cast" or not reads)


def _convert(graph: ir.Graph, value: ir.Value, half: Collection[ir.Node]) -> bool:
    """Give every reader of a float32 tensor, in inner graphs too, the type it computes in.

    Returns:
        Whether anything is in float16 now.
    """
    name, uses = value.name, value.uses()
    # Resize takes its scales in float32 whatever it resizes
    in_half = {
        use for use in uses if use.node in half and not (use.node.op_type == "Resize" and use.idx)
    }
    if value.producer() not in half:
        if in_half:
            twin = _half_constant(graph, value) or _cast(graph, value, f"{name}_half")
            _redirect(in_half, twin)
        return bool(in_half)
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    in_float = set(uses) - in_half
    if value.is_graph_output():
        value.name = f"{name}_half"
        exact = _cast(graph, value, str(name))
        graph.outputs[graph.outputs.index(value)] = exact
        _redirect(in_float, exact)
    elif in_float:
        _redirect(in_float, _cast(graph, value, f"{name}_float"))
    return True


def _redirect(uses: Collection[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, place in uses:
        node.replace_input_with(place, value)


def _half_constant(graph: ir.Graph, value: ir.Value) -> ir.Value | None:
    """A float16 twin of a stored tensor, in which nothing becomes zero; None for computed ones."""
    if value.const_value is None:
        return None
    exact = value.const_value.numpy()
    magnitude = np.where(exact == 0, 0, np.maximum(np.abs(exact), FLOAT16_TINY))
    rounded = np.copysign(magnitude, exact).astype(np.float16)
    twin = ir.val(f"{value.name}_half", const_value=ir.tensor(rounded, name=f"{value.name}_half"))
    graph.register_initializer(twin)
    return twin


def _cast(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """The tensor in the other of both types."""
    to = ir.DataType.FLOAT if value.dtype is ir.DataType.FLOAT16 else ir.DataType.FLOAT16
    twin = ir.val(name, dtype=to, shape=value.shape)
    node = ir.node("Cast", [value], {"to": to}, outputs=[twin], name=f"{name}_cast")
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(maker, node)
    return twin


def rounded_to_float16(model: ModelProto) -> ModelProto:
    """A stage of :func:`to_fp16` in float32, whose float16 tensors are rounded as they are made.

    It shows on any machine what float16 layers do to their numbers. ONNX Runtime has few such
    layers on a CPU: it computes them in float32 and drops the roundings between them, and an
    overflow with them. Within a layer, sums are in float32, as tensor cores take them.

    Raises:
        ExportError: types cannot be inferred.
    """
    stage = opened(model)
    graph, half = stage.graph, ir.DataType.FLOAT16
    for value in graph.initializers.values():
        stored = value.const_value
        if stored is not None and stored.dtype is half:
            value.const_value = ir.tensor(stored.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(graph):
        for name, attribute in node.attributes.items():
            if name == "to" and attribute.as_int() == half:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    made = [value for node in graph for value in node.outputs]
    for value in [v for v in (*graph.inputs, *made) if v.dtype is half]:
        _round(graph, value)
    return closed(stage)


def _round(graph: ir.Graph, value: ir.Value) -> None:
    """Make a float16 tensor a float32 one, which its readers find rounded."""
    name, uses = str(value.name), value.uses()
    value.type = ir.TensorType(ir.DataType.FLOAT)
    half = _cast(graph, value, f"{name}_rounding")
    if value.is_graph_output():
        value.name = f"{name}_exact"
        rounded = _cast(graph, half, name)
        graph.outputs[graph.outputs.index(value)] = rounded
    else:
        rounded = _cast(graph, half, f"{name}_rounded")
    _redirect(uses, rounded)
