"""The types of an ONNX file, for TensorRT 8, which else computes in whatever type is fastest.

Later versions build strongly typed networks and keep to the file. TensorRT 8 is told two things: in
what less than float32 it may compute, which is what the file has, and which layers compute in
float32 beside those in float16: their numbers are beyond float16's range or digits. What TensorRT
8.6 makes of it was not run.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dyninfer.bundle.manifest import Precision, Stage
from dyninfer.engines.protobuf import BYTES, VARINT, fields, varint
from dyninfer.engines.trt.api import IBuilderConfig, ILayer, INetworkDefinition
from dyninfer.engines.trt.library import Library
from dyninfer.errors import EngineBuildError
from dyninfer.foreign_errors import let_through

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto.DataType
_FLOATS = (FLOAT, FLOAT16)
_THEN_PLACES = frozenset((b"TopK", b"MaxPool", b"Unique"))
"""Operators whose further outputs are whole numbers, places in their input."""
_NO_FLOATS = frozenset(
    b"Shape Size ArgMax ArgMin NonZero Greater GreaterOrEqual Less LessOrEqual Equal And Or Not "
    b"IsNaN IsInf QuantizeLinear".split()
)
"""Operators whose outputs are never float, whatever they read."""


@dataclass(frozen=True)
class StageFile:
    """A stage and the ONNX file to build it from, which is in this precision."""

    name: str
    stage: Stage
    precision: Precision
    onnx: Path


def keep_types(
    library: Library, network: INetworkDefinition, config: IBuilderConfig, source: StageFile
) -> None:
    """Allow TensorRT 8 the types that the file has, and only where the file has them.

    Raises:
        EngineBuildError: the file cannot be read.
    """
    flags, types = library.module.BuilderFlag, library.module.DataType
    if source.precision is Precision.INT8:
        config.set_flag(flags.INT8)
    computes = node_types(source.onnx)
    if FLOAT16 not in computes.values():
        return
    config.set_flag(flags.FP16)
    config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = range(layer.num_outputs)
        made = {layer.get_output(output).dtype for output in outputs}
        if _type_of(layer, computes) == FLOAT and made <= {types.FLOAT, types.HALF}:
            layer.precision = types.FLOAT
            for output in outputs:
                layer.set_output_type(output, types.FLOAT)


def _type_of(layer: ILayer, computes: Mapping[str, int]) -> int | None:
    """The type of the node that a layer is, or is a part of: the parser numbers further parts."""
    name = layer.name if layer.name in computes else re.sub(r"_\d+$", "", layer.name)
    return computes.get(name)


def node_types(path: Path) -> dict[str, int]:
    """The float type in which every named node of a file's graph computes, by ONNX's number.

    That is the type of its first input of such a type. Casts, which compute nothing, are left out.

    Raises:
        EngineBuildError: it cannot be read as an ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _node_types(data)
    except (OSError, ValueError) as error:  # ValueError: it is empty, or no ONNX file
        let_through(error)
        raise EngineBuildError(f"{path} cannot be read as an ONNX file: {error}") from error


def _node_types(data: mmap.mmap) -> dict[str, int]:
    graphs = [(b, e) for n, kind, b, e in fields(data, 0, len(data)) if (n, kind) == (7, BYTES)]
    tensors: dict[bytes, int] = {}
    nodes = []
    for graph in graphs:
        for number, kind, begin, end in fields(data, *graph):
            if kind == BYTES and number == 1:
                nodes.append((begin, end))
            elif kind == BYTES and number == 5:
                tensors[_text(data, begin, end, 8)] = _number(data, begin, end, 2)
            elif kind == BYTES and number == 11:
                tensors[_text(data, begin, end, 1)] = _number(data, begin, end, 2, 1, 1)
    computes = {}
    for begin, end in nodes:  # in the order in which they run
        operator, name = _text(data, begin, end, 4), _text(data, begin, end, 3)
        read = [tensors.get(value, 0) for value in _texts(data, begin, end, 1)]
        floats = [found for found in read if found in _FLOATS]
        if operator == b"Cast":
            made = _number(data, begin, end, 5, 3)
        elif operator in (b"Constant", b"ConstantOfShape"):
            made = _number(data, begin, end, 5, 5, 2)
        else:
            made = floats[0] if floats and operator not in _NO_FLOATS else 0
            if floats and name:
                computes[name.decode(errors="replace")] = floats[0]
        outputs = list(_texts(data, begin, end, 2))
        of_type = outputs[:1] if operator in _THEN_PLACES else outputs
        tensors.update(dict.fromkeys(outputs, 0) | dict.fromkeys(of_type, made))
    return computes


def _texts(data: mmap.mmap, begin: int, end: int, number: int) -> Iterator[bytes]:
    for found, kind, first, last in fields(data, begin, end):
        if found == number and kind == BYTES:
            yield data[first:last]


def _text(data: mmap.mmap, begin: int, end: int, number: int) -> bytes:
    """The last field of this number, as every reader of protobuf takes it."""
    found = b""
    for found in _texts(data, begin, end, number):  # noqa: B007
        pass
    return found


def _number(data: mmap.mmap, begin: int, end: int, *path: int) -> int:
    """The whole number at the end of a path of messages' fields; 0 where it is not there."""
    value = 0
    for found, kind, first, last in fields(data, begin, end):
        if found != path[0]:
            continue
        if len(path) == 1 and kind == VARINT:
            value = varint(data, first, last)[0]
        elif len(path) > 1 and kind == BYTES:
            value = _number(data, first, last, *path[1:]) or value
    return value
