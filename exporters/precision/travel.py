"""In what types tensors travel: pictures into a stage, and feature maps from one to the next.

Stages are rewritten at their borders only. A picture comes as pixels, a quarter of the bytes, and
is normalised in the graph. A map that its stage has computed in float16 stays so, half of the
bytes: nothing is rounded that was not. A map that all its readers round to the same 8 bits is
rounded by its maker, a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common

from dyninfer.builds.spec import Travelling
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import MAP_AXES, EightBits, Manifest
from dyninfer.errors import ExportError
from dyninfer.exporters.graphs import GraphBuilder, closed
from dyninfer.exporters.precision.eight_bit_maps import hand_on, maps_in_8_bits, restore, take
from dyninfer.foreign_errors import reason_of
from dyninfer.images.spec import ImageSpec
from dyninfer.types import Float32Array

Types = dict[str, Travelling]


def rewrite_travel(
    bundle: Bundle,
    files: Mapping[str, Path],
    folder: Path,
    *,
    pixels: bool,
    maps: str | None,
    have: Mapping[str, Mapping[str, Travelling]] = MappingProxyType({}),
) -> tuple[dict[str, Path], Types]:
    """Rewrite stages so that their tensors travel in fewer bytes.

    Args:
        bundle: whose stages they are.
        files: stage -> the file that a conversion made; all others are the bundle's own.
        folder: where rewritten files go, as ``<stage>-travel.onnx``.
        pixels: take pictures as uint8.
        maps: "fp16" hands maps on in float16 where they were computed so, "int8" in 8 bits where
            that is what all who read them make of them; None as they are.
        have: stage -> the types that tensors of its file have already; only maps in 8 bits are
            given theirs back first.

    Returns:
        ``files`` with those that were rewritten, and the types that are not the manifest's.

    Raises:
        ExportError: a stage cannot be rewritten.
    """
    manifest, stages = bundle.manifest, _opened(bundle, files)
    restored = {n for n, stage in stages.items() if restore(stage.graph, have.get(n, {}))}
    types: Types = {}
    if maps == "fp16":
        types |= dict.fromkeys(_maps_in_half(manifest, stages), "float16")
    elif maps == "int8":
        types |= maps_in_8_bits(_maps(manifest), stages)
    if pixels:
        types |= dict.fromkeys(manifest.image_tensors, "uint8")
    written = dict(files)
    for name, stage in stages.items():
        if _rewrite(stage.graph, types, manifest.image_inputs) or name in restored:
            written[name] = folder / f"{name}-travel.onnx"
            written[name].write_bytes(_closed(stage, name).SerializeToString())
    return written, types


def _opened(bundle: Bundle, files: Mapping[str, Path]) -> dict[str, ir.Model]:
    """Every stage with its types inferred."""
    stages = {}
    for name in bundle.manifest.stages:
        with ExitStack() as stack:
            path = files[name] if name in files else stack.enter_context(bundle.opening(name))
            model = onnx.load(str(path))
        stages[name] = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    return stages


def _maps(manifest: Manifest) -> list[tuple[str, str]]:
    """(stage, map) of all maps that a stage makes and others read, and nobody else."""
    read = {spec.name for stage in manifest.stages.values() for spec in stage.inputs}
    return [
        (name, spec.name)
        for name, stage in manifest.stages.items()
        for spec in stage.outputs
        # vectors are few numbers, and what a router reads must stay exact
        if spec.name in read and len(spec.shape) == MAP_AXES
        if spec.name not in manifest.task.outputs
    ]


def _maps_in_half(manifest: Manifest, stages: Mapping[str, ir.Model]) -> list[str]:
    """Maps that a stage has computed in float16."""
    return [
        name for stage, name in _maps(manifest) if _in_half(stages[stage].graph, name) is not None
    ]


def _in_half(graph: ir.Graph, output: str) -> ir.Value | None:
    """The float16 tensor that an output is in float32."""
    (value,) = (value for value in graph.outputs if value.name == output)
    cast = value.producer()
    if cast is None or cast.op_type != "Cast" or value.dtype is not ir.DataType.FLOAT:
        return None
    source = cast.inputs[0]
    half = source is not None and source.dtype is ir.DataType.FLOAT16
    return source if half and source is not None and source.producer() is not None else None


def _rewrite(graph: ir.Graph, types: Types, images: Mapping[str, ImageSpec]) -> bool:
    """Give inputs and outputs these types; whether the stage has any of them."""
    reads = [value for value in graph.inputs if value.name in types]
    makes = [value for value in graph.outputs if value.name in types]
    for value in makes:
        kind = types[str(value.name)]
        if isinstance(kind, EightBits):
            hand_on(graph, value, kind)
        else:
            _hand_on_half(graph, value)
    for value in reads:
        name, kind = str(value.name), types[str(value.name)]
        if name in images:
            _take_pixels(graph, value, images[name])
        elif isinstance(kind, EightBits):
            take(graph, value, kind)
        else:
            _take_half(graph, value)
    if reads or makes:
        graph.sort()
    return bool(reads or makes)


def _hand_on_half(graph: ir.Graph, value: ir.Value) -> None:
    name = str(value.name)
    half = _in_half(graph, name)
    assert half is not None, "it was computed in float16"
    value.name, half.name, half.shape = f"{name}_float", name, value.shape
    graph.outputs[graph.outputs.index(value)] = half


def _take_half(graph: ir.Graph, value: ir.Value) -> None:
    uses = value.uses()
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    in_float = []
    for node, place in uses:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.outputs[0].replace_all_uses_with(value)
        else:
            in_float.append((node, place))
    if in_float:
        exact = GraphBuilder(graph, f"{value.name}_travel").cast(value, ir.DataType.FLOAT)
        for node, place in in_float:
            node.replace_input_with(place, exact)


def _take_pixels(graph: ir.Graph, value: ir.Value, spec: ImageSpec) -> None:
    uses = value.uses()
    value.type = ir.TensorType(ir.DataType.UINT8)
    builder = GraphBuilder(graph, f"{value.name}_travel")
    scale = _of_channels(1 / std for std in spec.std)
    shift = _of_channels(-mean / std for mean, std in zip(spec.mean, spec.std, strict=True))
    image = builder.scale(builder.cast(value, ir.DataType.FLOAT), scale)
    if shift.any():
        image = builder.apply("Add", image, builder.constant(shift))
    for node, place in uses:
        node.replace_input_with(place, image)


def _of_channels(numbers: Iterable[float]) -> Float32Array:
    """A number for each channel, (3, 1, 1)."""
    return np.array([*numbers], np.float32).reshape(3, 1, 1)


def _closed(stage: ir.Model, name: str) -> ModelProto:
    common.RemoveUnusedNodesPass()(stage)
    model = closed(stage)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"stage {name!r} cannot take other types: {reason_of(error)}; pictures and "
            "feature maps must stay in float32 (no --input, and --io fp32)"
        ) from None
    return model
