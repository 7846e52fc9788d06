"""A cascade whose stages do next to nothing: what remains of a call's time is the runtime's."""

from __future__ import annotations

from pathlib import Path

import onnx

from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task, TensorSpec
from dyninfer.bundle.writing import write_bundle, write_stage_file
from dyninfer.images.spec import ImageSpec

SIZE = 32
_HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
_IMAGES = f"float[batch, 3, {SIZE}, {SIZE}] images"
_VALUE = "float[batch, 3, 1, 1] value"
_ENDS = "float[batch, 1, 4] boxes_xyxy, float[batch, 1, 2] class_scores"
_CORNER = "int64[2] start = {0, 0}, int64[2] stop = {1, 1}, int64[2] axes = {2, 3}"
_PICK = "value = Slice(images, start, stop, axes)"
_BOX = "float[1, 1, 4] corners = {4, 4, 20, 20}, float[1, 1, 2] scores = {0.25, 0.75}"
_FIND = """
    least = ReduceMin<axes = [1], keepdims = 0>(value)
    boxes_xyxy = Add(least, corners)
    class_scores = Add(least, scores)
"""
_PIXEL = "int64 zero = {0}, int64[2] pixel = {1, 2}"
_EASINESS = """
    picked = Gather<axis = 1>(value, zero)
    easiness = Squeeze(picked, pixel)
"""
STAGES = {
    "first": f"{_HEAD} idle ({_IMAGES}) => ({_VALUE}) <{_CORNER}> {{ {_PICK} }}",
    "router": f"{_HEAD} idle ({_VALUE}) => (float[batch] easiness) <{_PIXEL}> {{ {_EASINESS} }}",
    "head": f"{_HEAD} idle ({_VALUE}) => ({_ENDS}) <{_BOX}> {{ {_FIND} }}",
    "second": f"{_HEAD} idle ({_IMAGES}) => ({_ENDS}) <{_CORNER}, {_BOX}> {{ {_PICK} {_FIND} }}",
}
"""In ONNX's own notation."""


def write_idle_bundle(path: Path) -> Path:
    """Write a bundle of two exits that read one pixel of the image and find one box.

    The easiness is the pixel's first channel, the box is moved by it.

    Raises:
        ExportError: something is there already, or it cannot be written.
    """
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))

    def write(folder: Path) -> Manifest:
        return Manifest(
            name=path.name.removesuffix(".dyn"),
            family="idle",
            task=Task.DETECT,
            class_names=("left", "right"),
            route=CascadeRoute(exits=exits),
            stages={name: _write_stage(folder, name, text) for name, text in STAGES.items()},
            image_inputs={"images": ImageSpec(SIZE, SIZE)},
            source=Source(file_name="none", sha256="0" * 64),
            written_by="dyninfer.benchmarks.lab.limits.idle_bundle",
        )

    write_bundle(path, write)
    return path


def _write_stage(folder: Path, name: str, text: str) -> Stage:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    file = f"onnx/{name}.onnx"
    inputs, outputs = (
        tuple(
            TensorSpec(
                name=value.name,
                dtype="float32",
                shape=tuple(a.dim_param or a.dim_value for a in value.type.tensor_type.shape.dim),
            )
            for value in values
        )
        for values in (model.graph.input, model.graph.output)
    )
    sha256 = write_stage_file(folder, file, model.SerializeToString())
    return Stage(file=file, sha256=sha256, inputs=inputs, outputs=outputs, parameters=0, macs=0)
