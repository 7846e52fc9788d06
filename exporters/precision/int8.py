"""float32 -> 8-bit integers, written into the graph as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common

from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.errors import ExportError
from dyninfer.exporters.extras import quiet
from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.graph import (
    QUANTIZERS,
    decode_nodes,
    end_layers,
    finished,
    float_tensors,
    opened,
    silu_inputs,
    summary_nodes,
    touched,
)
from dyninfer.exporters.precision.joined_maps import round_before, shared_ranges
from dyninfer.exporters.precision.ranges import Feed, Observed, Tick, clipping_range, observe
from dyninfer.exporters.precision.settings import (
    PERCENTILES,
    CalibrationMethod,
    Int8Settings,
    Int8Target,
    types_for,
)
from dyninfer.exporters.precision.upsampling import upsample_by_copies
from dyninfer.foreign_errors import reason_of

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
# OpenVINO does not: what moves a map is listed, so that its input is rounded, and joined_maps.py
# sees to what is concatenated
OPENVINO_OPS = TENSORRT_OPS | {"Split", "Resize", "MaxPool"}
_OPS = {
    Int8Target.CPU: CPU_OPS,
    Int8Target.OPENVINO: OPENVINO_OPS,
    Int8Target.TENSORRT: TENSORRT_OPS,
}
# x * sigmoid(x) is between -0.015 and 0 for all x below: more than 8 bits could tell apart. The
# numbers a convolution makes reach far lower, and would take most of the steps for nothing.
SILU_FLOOR = -6.0


def prepare_int8(model: ModelProto) -> ir.Model:
    """The stage with constants folded, batch norms merged and types inferred.

    Raises:
        ExportError: ONNX Runtime's preparation fails.
    """
    from onnxruntime import quantization

    named = opened(model)
    with scratch_folder() as folder, quiet():
        source, path = folder / "named.onnx", folder / "prepared.onnx"
        # given a model in memory, ONNX Runtime 1.31 looks for weights on disk
        onnx.save(closed(named), source)
        try:
            # symbolic inference is for transformers and needs a package more
            quantization.quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
            optimised = onnx.load(path)
        except Exception as error:  # its exceptions share no public base class
            reason = reason_of(error)
            raise ExportError(f"a stage cannot be prepared for int8: {reason}") from error
    foreign = {n.domain for n in optimised.graph.node} - {n.domain for n in named.graph}
    # operators of ONNX Runtime's own would not build in TensorRT
    return named if foreign else opened(optimised)


def observe_stage(
    prepared: ir.Model,
    feed: Feed,
    settings: Int8Settings,
    tick: Tick = lambda: None,
) -> dict[str, Observed]:
    """What the tensors that quantised nodes touch hold, as far as the method needs it."""
    ops = ops_for(settings.target)
    names = {name for node in prepared.graph if node.op_type in ops for name in touched(node)}
    return observe(
        closed(prepared),
        names & float_tensors(prepared.graph),
        feed,
        histograms=settings.method is not CalibrationMethod.MINMAX,
        tick=tick,
    )


def ops_for(target: Int8Target) -> frozenset[str]:
    """Operators that are quantised for a target."""
    return _OPS[target]


def to_int8(
    model: ir.Model,
    observed: Mapping[str, Observed],
    settings: Int8Settings,
    keep: Collection[ir.Node] = (),
    only: Collection[ir.Node] | None = None,
) -> ModelProto:
    """A stage whose layers compute in 8-bit integers; all else stays float32.

    Weights are signed and symmetric with one scale for every output channel. The decode
    (:func:`decode_nodes`) and the layers before it (:func:`end_layers`), small ones, stay in
    float32: rounding the raw predictions to 256 values alone cost the embedded model several
    points of precision. So does what a router reads (:func:`summary_nodes`).

    Args:
        model: from :func:`prepare_int8`.
        observed: from :func:`observe_stage`.
        settings: target and method.
        keep: further nodes that stay in float32.
        only: if given, no other nodes are quantised.

    Raises:
        ExportError: the result does not pass ONNX's checker.
    """
    graph, source = model.graph, closed(model)
    kept = decode_nodes(graph) | end_layers(graph) | summary_nodes(graph) | frozenset(keep)
    infinite = {name for name, seen in observed.items() if not seen.is_finite}
    chosen = [
        str(node.name)
        for node in (graph if only is None else only)
        if node.op_type in ops_for(settings.target)
        and node not in kept
        and infinite.isdisjoint(touched(node))
    ]
    if not chosen:
        return finished(ir.from_proto(source), source, "int8")
    inside: dict[str, str] = {}
    if settings.target is not Int8Target.CPU:
        model = model.clone()
        inside = _part_outputs(model.graph)
    ranges = _tensor_ranges(graph, observed, settings, chosen, inside)
    converted = _quantised(ir.to_proto(model), chosen, ranges, settings.target)
    if inside:
        _join_outputs(converted)
    if settings.target is Int8Target.OPENVINO:
        round_before(converted.graph)
    if settings.target is Int8Target.CPU:
        upsample_by_copies(converted.graph, model.graph)
    return finished(converted, source, "int8")


def _quantised(
    model: ModelProto, chosen: Sequence[str], ranges: object, target: Int8Target
) -> ir.Model:
    """The model with the nodes of these names in 8 bits."""
    from onnxruntime import quantization

    types, kinds = types_for(target), quantization.QuantType
    options: dict[str, object] = {"ActivationSymmetric": types.signed, "WeightSymmetric": True}
    if target is not Int8Target.CPU:
        options |= {
            "QuantizeBias": False,  # TensorRT has no 32-bit DequantizeLinear
            "OpTypesToExcludeOutputQuantization": sorted(TENSORRT_OPS),
            # one for each reader, as TensorRT's fusions expect; in OpenVINO each costs a pass
            "DedicatedQDQPair": target is Int8Target.TENSORRT,
        }
    with quiet():
        quantizer = quantization.QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=types.reduce_range,
            weight_qType=kinds.QInt8,
            activation_qType=kinds.QInt8 if types.signed else kinds.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=sorted(ops_for(target)),
            extra_options=options,
        )
        quantizer.quantize_model()
    converted: ir.Model = ir.from_proto(quantizer.model.model)
    common.TopologicalSortPass()(converted)
    return converted


def _part_outputs(graph: ir.Graph) -> dict[str, str]:
    """Put a node that passes its input on before every output.

    The quantiser rounds an output because somebody inside reads it. Behind these nodes it does not.

    Returns:
        Output -> the name that its tensor has inside now.
    """
    inside = {}
    for place, value in enumerate(graph.outputs):
        name = str(value.name)
        value.name = inside[name] = f"{name}_inside"
        outer = ir.val(name, type=value.type, shape=value.shape)
        graph.append(ir.node("Identity", [value], outputs=[outer], name=f"{name}_out"))
        graph.outputs[place] = outer
    return inside


def _join_outputs(model: ir.Model) -> None:
    """Undo :func:`_part_outputs`; an output is what its node made, not that in 8 bits and back."""
    for passes in [output.producer() for output in model.graph.outputs]:
        assert passes is not None, "every output was parted"
        while (makers := passes.predecessors()) and makers[0].op_type in QUANTIZERS:
            passes.replace_input_with(0, makers[0].inputs[0])
    common.IdentityEliminationPass()(model)


def _tensor_ranges(
    graph: ir.Graph,
    observed: Mapping[str, Observed],
    settings: Int8Settings,
    chosen: Collection[str],
    renamed: Mapping[str, str],
) -> object:
    from onnxruntime.quantization import calibrate

    before_silu = silu_inputs(graph)
    ranges = {}
    for name, seen in observed.items():
        if not seen.is_finite:
            continue  # its nodes stay in float32
        low, high = clipping_range(seen, settings.method, PERCENTILES[settings.target])
        if name in before_silu:
            low, high = max(low, SILU_FLOOR), max(high, SILU_FLOOR)
        ranges[renamed.get(name, name)] = (np.array(low, np.float32), np.array(high, np.float32))
    if settings.target is Int8Target.OPENVINO:
        ranges |= shared_ranges(graph, ranges, chosen)
    # the ranges are ready to be used, whatever method they are from
    return calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges)
