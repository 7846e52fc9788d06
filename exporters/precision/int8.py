"""float32 -> 8-bit integers, written into the graph as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from dyninfer.errors import ExportError
from dyninfer.exporters.precision.clipping import Observed, clipping_range
from dyninfer.exporters.precision.extras import require_quantization
from dyninfer.exporters.precision.graph import (
    decode_nodes,
    end_layers,
    float_tensors,
    prepared_copy,
    silu_inputs,
    summary_nodes,
)
from dyninfer.exporters.precision.ranges import Feed, Tick, observe
from dyninfer.exporters.precision.rewrite import (
    bypass,
    drop_unread,
    finished,
    part_outputs,
)
from dyninfer.exporters.precision.settings import (
    CalibrationMethod,
    Int8Settings,
    Int8Target,
    QuantTypes,
    types_for,
)

# On the CPU everything between two convolutions is quantised: with convolutions alone, Dy-YOLOv7's
# first stage took 1.6 times as long, for every activation went through float32 and back.
CPU_OPS = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Sigmoid", "LeakyRelu", "Relu"),
        *("Clip", "Concat", "Split", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"),
        *("Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
    }
)
# TensorRT moves a QuantizeLinear in front of pooling, concatenation and resizing by itself, and
# fuses activations into the layer before: quantising their inputs would only part them from it.
TENSORRT_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"})
# x * sigmoid(x) is between -0.015 and 0 for all x below: more than 8 bits could tell apart. The
# numbers a convolution makes reach far lower, and would take most of the steps for nothing.
SILU_FLOOR = -6.0


def prepare_int8(model: ModelProto) -> ModelProto:
    """The stage with constants folded, batch norms merged and types inferred.

    Raises:
        ExportError: ONNX Runtime's preparation fails.
        MissingExtra: ONNX Runtime is not installed.
    """
    quantization = require_quantization()
    named = prepared_copy(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, path = Path(folder) / "named.onnx", Path(folder) / "prepared.onnx"
        onnx.save(
            named, source
        )  # given a model in memory, ONNX Runtime 1.31 looks for weights on disk
        try:
            # symbolic inference is for transformers and needs a package more
            quantization.quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
            optimised = onnx.load(path)
        except Exception as error:  # its exceptions share no public base class
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"a stage cannot be prepared for int8: {reason}") from error
    foreign = {n.domain for n in optimised.graph.node} - {n.domain for n in named.graph.node}
    # operators of ONNX Runtime's own would not build in TensorRT
    return prepared_copy(named if foreign else optimised)


def observe_stage(
    prepared: ModelProto, feed: Feed, settings: Int8Settings, tick: Tick = lambda: None
) -> dict[str, Observed]:
    """What the tensors that quantised nodes touch hold, as far as the method needs it."""
    constant = {tensor.name for tensor in prepared.graph.initializer}
    ops = ops_for(settings.target)
    touched = {
        name
        for node in prepared.graph.node
        if node.op_type in ops
        for name in (*node.input, *node.output)
    }
    return observe(
        prepared,
        (touched & float_tensors(prepared)) - constant,
        feed,
        histograms=settings.method is not CalibrationMethod.MINMAX,
        memory_mib=settings.memory_mib,
        tick=tick,
    )


def ops_for(target: Int8Target) -> frozenset[str]:
    """Operators that are quantised for a target."""
    return TENSORRT_OPS if target is Int8Target.TENSORRT else CPU_OPS


def to_int8(
    model: ModelProto,
    observed: Mapping[str, Observed],
    settings: Int8Settings,
    keep: Collection[str] = (),
    only: Collection[str] | None = None,
    types: QuantTypes | None = None,
) -> ModelProto:
    """A stage whose layers compute in 8-bit integers; its inputs and outputs stay float32.

    Weights are signed and symmetric with one scale for every output channel. The decode
    (:func:`decode_nodes`) and the layers before it (:func:`end_layers`), small ones, stay in
    float32: rounding the raw predictions to 256 values alone cost the embedded model several
    points of precision. So does what a router reads (:func:`summary_nodes`).

    Args:
        model: from :func:`prepare_int8`.
        observed: from :func:`observe_stage`.
        settings: target and method.
        keep: names of further nodes that stay in float32.
        only: if given, no other nodes are quantised.
        types: element types; None for those that the target computes with fastest here.

    Raises:
        ExportError: the result does not pass ONNX's checker.
    """
    quantization = require_quantization()
    types = types or types_for(settings.target)
    kept = decode_nodes(model) | end_layers(model) | summary_nodes(model) | frozenset(keep)
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type in ops_for(settings.target)
        and node.name not in kept
        and not _touches_infinity(node, observed)
        and (only is None or node.name in only)
    ]
    copy = ModelProto()
    copy.CopyFrom(model)
    if not chosen:
        return finished(copy, model, "int8")
    if settings.target is Int8Target.TENSORRT:
        inside = part_outputs(copy)
        observed = {inside.get(name, name): seen for name, seen in observed.items()}
    quant_type = quantization.QuantType
    signed = types.signed_activations
    with _quiet():
        quantizer = quantization.QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=types.reduce_range,
            weight_qType=quant_type.QInt8,
            activation_qType=quant_type.QInt8 if signed else quant_type.QUInt8,
            tensors_range=_tensor_ranges(model, observed, settings),
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(ops_for(settings.target)),
            extra_options=_options(settings.target, types),
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    converted = quantizer.model.model
    if settings.target is Int8Target.TENSORRT:
        _join_outputs(converted)
    return finished(converted, model, "int8")


def _touches_infinity(node: NodeProto, observed: Mapping[str, Observed]) -> bool:
    """Whether a node reads or makes what no 8 bits can hold."""
    seen = (observed.get(name) for name in (*node.input, *node.output))
    return any(tensor is not None and not tensor.is_finite for tensor in seen)


def _join_outputs(model: ModelProto) -> None:
    """Undo :func:`part_outputs`; an output is what its node made, not that in 8 bits and back."""
    graph = model.graph
    pair = {"QuantizeLinear", "DequantizeLinear"}
    for value in graph.output:
        makers = {name: node for node in graph.node for name in node.output}
        passes = makers[value.name]
        source = passes.input[0]
        while source in makers and makers[source].op_type in pair:
            source = makers[source].input[0]
        bypass(graph, makers, passes, source, value.name)
    drop_unread(graph, pair)


def _options(target: Int8Target, types: QuantTypes) -> dict[str, object]:
    options: dict[str, object] = {"ActivationSymmetric": types.symmetric, "WeightSymmetric": True}
    if target is Int8Target.TENSORRT:
        options |= {
            "QuantizeBias": False,  # TensorRT has no 32-bit DequantizeLinear
            "OpTypesToExcludeOutputQuantization": sorted(TENSORRT_OPS),
            "DedicatedQDQPair": True,  # one for each reader, as TensorRT's fusions expect
        }
    return options


def _tensor_ranges(
    model: ModelProto, observed: Mapping[str, Observed], settings: Int8Settings
) -> object:
    from onnxruntime.quantization import TensorsData, calibrate

    before_silu = silu_inputs(model)
    ranges = {}
    for name, seen in observed.items():
        if not seen.is_finite:
            continue  # its nodes stay in float32
        low, high = clipping_range(seen, settings.method, settings.held_percent)
        if name in before_silu:
            low, high = max(low, SILU_FLOOR), max(high, SILU_FLOOR)
        ranges[name] = (np.array(low, np.float32), np.array(high, np.float32))
    # the ranges are ready to be used, whatever method they are from
    return TensorsData(calibrate.CalibrationMethod.MinMax, ranges)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the quantiser logs about single tensors; errors still are exceptions."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
