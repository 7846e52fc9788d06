"""Reading somebody's ONNX file: nothing of it is run, and it reaches no file outside its folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships none
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Precision
from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.arithmetic import (
    in_running_order,
    precision_of,
    rounds_to_half,
    tensors_of,
    widened,
)
from dyninfer.exporters.cascade.ports import Port, port, tells_size
from dyninfer.exporters.cascade.tensor_sizes import check_tensor_sizes, check_weights
from dyninfer.exporters.file_kinds import START, other_than_onnx
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through, reason_of

OLDEST_OPSET = 13  # from here on the operators of the decodes have the signature they have today
PREFERRED_OPSET = 17  # the newest that TensorRT 8.6 reads
LARGEST_BYTES = 2**31 - 1  # of a protobuf message
IMAGE_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.UINT8: "uint8",
}
_STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True)
class OnnxFile:
    """A detector as it lies on disk, with its weights in memory.

    ``image`` is its image input; what its other inputs ``sizes`` hold follows from the image's
    size. ``metadata`` is what the exporting tool noted beside it. ``precision`` is what its layers
    compute in, whatever its input and outputs are; ``rounded`` tells of float16 anywhere.
    """

    path: Path
    sha256: str
    model: ModelProto
    image: Port
    metadata: dict[str, str]
    sizes: tuple[Port, ...] = ()
    precision: Precision = Precision.FP32
    rounded: bool = False


def read_onnx(path: Path) -> OnnxFile:
    """Read a detector and refuse what cannot be one.

    Raises:
        CheckpointError: the file is missing, no ONNX, broken, too large, or reads files outside
            its folder; or it has not exactly one image input; or operators that are unknown.
    """
    model = _parse(path)
    _embed_weights(model, path)
    check_weights(model, path)
    model = _check_operators(model, path)
    check_tensor_sizes(model, path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [port(value) for value in model.graph.input if value.name not in weights]
    image = _image_input(inputs, path)
    return OnnxFile(
        path=path,
        sha256=file_sha256(path),
        model=_at_least_opset(model, path),
        image=image,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        sizes=tuple(port for port in inputs if port is not image),
        precision=precision_of(model.graph),
        rounded=rounds_to_half(model.graph),
    )


def _parse(path: Path) -> ModelProto:
    data = b""
    try:
        data = read_file(path, LARGEST_BYTES)
        model = onnx.load_from_string(data)
    except OSError as error:
        let_through(error)
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; check the path of the detector"
        ) from None
    except (DecodeError, ValueError):
        raise CheckpointError(
            f"{path} is not an ONNX file{other_than_onnx(data[:START])}; export the detector to "
            "ONNX first"
        ) from None
    if not model.graph.node or not model.opset_import:
        raise CheckpointError(
            f"{path} holds no ONNX graph; expected a detector exported to ONNX with its weights"
        )
    if not model.ir_version:
        raise CheckpointError(
            f"{path} names no ir_version, so it is not a whole ONNX model; export it again"
        )
    return model


def _embed_weights(model: ModelProto, path: Path) -> None:
    """Load weights from files beside the model, which may not lie outside its folder."""
    outside = [tensor for tensor in tensors_of(model.graph) if uses_external_data(tensor)]
    if not outside:
        return
    folder = path.resolve().parent
    total = path.stat().st_size
    for tensor in outside:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        try:
            file = (folder / location).resolve()
            inside = bool(location) and file.is_relative_to(folder)
        except (OSError, ValueError, RuntimeError):  # no path at all, or links that go in circles
            inside = False
        if not inside:
            raise CheckpointError(
                f"{path} reads weights from {location!r}, outside its own folder; refused"
            )
        if not os.path.isfile(file):  # noqa: PTH113  # Path's raises for a name that is too long
            raise CheckpointError(
                f"{path} reads weights from {location!r}, which is not there; "
                "put that file beside it"
            )
        length = next((e.value for e in tensor.external_data if e.key == "length"), "")
        total += int(length) if re.fullmatch(r"\d{1,18}", length) else file.stat().st_size
        if total > LARGEST_BYTES:  # tensors may lie on the same bytes, and each is a copy of them
            raise CheckpointError(f"{path} and its weights have over 2 GB, expected less")
    try:
        load_external_data_for_model(model, str(folder))
    except Exception as error:  # onnx raises its checker's, the file system's and numpy's errors
        reason = reason_of(error)
        raise CheckpointError(f"the weights beside {path} cannot be read: {reason}") from None


def _check_operators(model: ModelProto, path: Path) -> ModelProto:
    """The model with its nodes in the order they run, for converters append theirs at the end."""
    if model.graph.sparse_initializer:
        raise CheckpointError(f"{path} holds sparse weights; export the detector with dense ones")
    try:
        graph = ir.from_proto(model)
    except Exception as error:  # onnx-ir raises its own and Python's errors for a broken graph
        raise _unusable(path, error) from None
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in graph.graph.all_nodes()
            if node.domain not in _STANDARD_DOMAINS and node.op_identifier() not in graph.functions
        }
    )
    if foreign:
        raise CheckpointError(
            f"{path} uses {', '.join(foreign)}, which ONNX Runtime does not have; export the "
            "detector without plug-ins, for example without its own NMS"
        )
    if in_running_order(model.graph):
        return model
    try:
        graph.graph.sort()
    except ValueError:
        raise CheckpointError(f"{path} holds a graph that goes in circles") from None
    try:
        return ir.to_proto(graph)
    except Exception as error:  # as above: weights are read here
        raise _unusable(path, error) from None


def _unusable(path: Path, error: Exception) -> CheckpointError:
    """What onnx-ir found wrong: the first of its errors says it, the others where."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    return CheckpointError(f"{path} holds no usable graph: {reason_of(first)}")


def in_float32(file: OnnxFile) -> OnnxFile:
    """A file in float16 as it would be without its rounding, its inputs and outputs included."""
    model = widened(file.model)
    ports = {value.name: port(value) for value in model.graph.input}
    return replace(
        file,
        model=model,
        image=ports[file.image.name],
        sizes=tuple(ports[own.name] for own in file.sizes),
        precision=Precision.FP32,
        rounded=False,
    )


def _at_least_opset(model: ModelProto, path: Path) -> ModelProto:
    """The model at an opset in which the decodes can be written; newer ones stay as they are."""
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if version >= OLDEST_OPSET:
        return model
    reasons = []
    for target in (PREFERRED_OPSET, OLDEST_OPSET):
        try:
            return onnx.version_converter.convert_version(model, target)
        except Exception as error:  # the converter raises RuntimeError and several of its own
            reasons.append(reason_of(error))
    raise CheckpointError(
        f"{path} has opset {version}, which cannot be converted to {OLDEST_OPSET} or later "
        f"({reasons[-1]}); export the detector again with opset {PREFERRED_OPSET}"
    )


def _image_input(inputs: list[Port], path: Path) -> Port:
    """The input that takes the image; what all others hold must be known."""
    shown = ", ".join(map(str, inputs)) or "none"
    others = [port for port in inputs if tells_size(port)]
    images = [port for port in inputs if port not in others]
    if len(images) != 1:
        raise CheckpointError(
            f"{path} has the inputs {shown}; expected one, the image, and at most such that tell "
            "its size: a detector with further inputs has to be exported with these as constants"
        )
    image = images[0]
    if image.elem_type not in IMAGE_TYPES or len(image.shape or "four") not in (3, 4):
        raise CheckpointError(
            f"{path} has the input {shown}; expected an image (N, 3, H, W) or (N, H, W, 3) of "
            f"{', '.join(IMAGE_TYPES.values())}"
        )
    return image
