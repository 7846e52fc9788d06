"""A cascade whose stages do next to nothing: what remains of a call's time is the runtime's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task, TensorSpec
from dyninfer.bundle.writing import write_bundle, write_stage_file
from dyninfer.images.spec import ImageSpec

SIZE = 32
_BATCH = "batch"
_Shapes = Mapping[str, Sequence[int | str]]
_Constants = Mapping[str, npt.NDArray[np.generic]]
_ENDS: _Shapes = {"boxes_xyxy": [_BATCH, 1, 4], "class_scores": [_BATCH, 1, 2]}
_END_CONSTANTS: _Constants = {
    "corners": np.array([[[4, 4, 20, 20]]], np.float32),
    "scores": np.array([[[0.25, 0.75]]], np.float32),
}
_CORNER: _Constants = {
    "start": np.array([0, 0]),
    "stop": np.array([1, 1]),
    "axes": np.array([2, 3]),
}


def write_idle_bundle(path: Path) -> Path:
    """Write a bundle of two exits that read one pixel of the image and find one box.

    The easiness is the pixel's first channel, the box is moved by it.

    Args:
        path: of the bundle to be made, ``NAME.dyn``.

    Raises:
        ExportError: something is there already, or it cannot be written.
    """
    images: _Shapes = {"images": [_BATCH, 3, SIZE, SIZE]}
    value: _Shapes = {"value": [_BATCH, 3, 1, 1]}
    pick = helper.make_node("Slice", ["images", "start", "stop", "axes"], ["value"])
    models = {
        "first": _model(images, value, [pick], _CORNER),
        "router": _router(value),
        "head": _model(value, _ENDS, _end_nodes(), _END_CONSTANTS),
        "second": _model(images, _ENDS, [pick, *_end_nodes()], {**_CORNER, **_END_CONSTANTS}),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))

    def write(folder: Path) -> Manifest:
        stages = {name: _write_stage(folder, name, model) for name, model in models.items()}
        return Manifest(
            name=path.name.removesuffix(".dyn"),
            family="idle",
            task=Task.DETECT,
            class_names=("left", "right"),
            route=CascadeRoute(exits=exits),
            stages=stages,
            image_inputs={"images": ImageSpec(SIZE, SIZE)},
            source=Source(file_name="none", sha256="0" * 64),
            written_by="dyninfer.benchmarks.lab.limits.idle_bundle",
        )

    write_bundle(path, write)
    return path


def _router(value: _Shapes) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["value", "zero"], ["picked"], axis=1),
        helper.make_node("Squeeze", ["picked", "pixel"], ["easiness"]),
    ]
    constants = {"zero": np.array(0), "pixel": np.array([1, 2])}
    return _model(value, {"easiness": [_BATCH]}, nodes, constants)


def _end_nodes() -> list[onnx.NodeProto]:
    """Turn the pixel (N, 3, 1, 1) into one box and its two scores."""
    return [
        helper.make_node("ReduceMin", ["value"], ["least"], axes=[1], keepdims=0),
        helper.make_node("Add", ["least", "corners"], ["boxes_xyxy"]),
        helper.make_node("Add", ["least", "scores"], ["class_scores"]),
    ]


def _model(
    inputs: _Shapes, outputs: _Shapes, nodes: Sequence[onnx.NodeProto], constants: _Constants
) -> onnx.ModelProto:
    def values(shapes: _Shapes) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, shape in shapes.items()
        ]

    used = {name for node in nodes for name in node.input}
    initializers = [
        numpy_helper.from_array(array, name) for name, array in constants.items() if name in used
    ]
    graph = helper.make_graph(list(nodes), "idle", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_stage(folder: Path, name: str, model: onnx.ModelProto) -> Stage:
    file = f"onnx/{name}.onnx"
    return Stage(
        file=file,
        sha256=write_stage_file(folder, file, model.SerializeToString()),
        inputs=_specs(model.graph.input),
        outputs=_specs(model.graph.output),
        parameters=0,
        macs=0,
    )


def _specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype="float32",
            shape=tuple(a.dim_param or a.dim_value for a in value.type.tensor_type.shape.dim),
        )
        for value in values
    )
