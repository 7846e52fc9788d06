"""Where an ONNX file keeps its weights: in itself, or in the file beside it that its stage names.

ONNX lets a tensor say where its values are: in another file, and ONNX Runtime before 1.24 took any
file, and any address of the process's memory, for that. The format is protobuf's
(https://protobuf.dev/programming-guides/encoding/); numbers of fields are those of onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dyninfer.bundle.manifest import StoredFile
from dyninfer.engines.protobuf import BYTES, fields, varint
from dyninfer.errors import EngineBuildError
from dyninfer.foreign_errors import let_through

_LOCATION = b"location"
"""The key without which no tensor says where its values are."""
_TENSOR, _INITIALIZER = "tensor", "initializer"
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
_PARTS: dict[str, dict[int, str]] = {  # message -> number of a field -> the message that it holds
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "subgraph", 2: "subgraph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _INITIALIZER, 15: "sparse"},
    "subgraph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: _TENSOR,
        6: "subgraph",
        10: _TENSOR,
        11: "subgraph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
_LARGE = ("model", "graph", _TENSOR, _INITIALIZER)
"""What holds weights, or most of what there is: to step over its parts is quicker than a search."""
_EXTERNAL = 1
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True)
class SharedTensor:
    """An initializer whose values are bytes ``start`` to ``stop`` of the weights beside a file."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int
    stop: int


def find_shared(path: Path, what: str, weights: StoredFile | None) -> tuple[SharedTensor, ...]:
    """What an ONNX file keeps in the weights beside it; messages call the file ``what``.

    Only initializers of the graph itself may be there, with a whole description.

    Raises:
        EngineBuildError: values are kept anywhere else, or it is no ONNX file.
    """
    location = None if weights is None else PurePosixPath(weights.file).name
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            shared = [
                _shared(data, start, stop, location) if message == _INITIALIZER else None
                for message, start, stop in _kept_elsewhere(data)
            ]
    except (OSError, ValueError) as error:  # ValueError: it is empty
        let_through(error)
        raise EngineBuildError(
            f"{what} ({path}) cannot be read as an ONNX file: {error}; export the bundle again"
        ) from error
    found = tuple(tensor for tensor in shared if tensor is not None)
    if len(found) < len(shared) or len({tensor.name for tensor in found}) < len(found):
        raise EngineBuildError(
            f"{what} ({path}) keeps weights outside of the file, where no hash covers them; "
            "export the bundle again"
        )
    return found


def _kept_elsewhere(data: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Every tensor that says where its values are: what it is, and its place in the file."""
    rest = [("model", 0, len(data))]
    while rest:
        message, start, stop = rest.pop()
        if message not in _LARGE and data.find(_LOCATION, start, stop) < 0:
            continue
        found = list(fields(data, start, stop))
        if message in (_TENSOR, _INITIALIZER):
            tells = (_EXTERNAL_DATA, _DATA_LOCATION)
            if any(number in tells and any(data[a:b]) for number, _, a, b in found):
                yield message, start, stop
            continue
        for number, kind, begin, end in found:
            if kind == BYTES and number in _PARTS[message]:
                rest.append((_PARTS[message][number], begin, end))


def _shared(data: mmap.mmap, start: int, stop: int, location: str | None) -> SharedTensor | None:
    """What a tensor says, where it is whole, of one meaning, and leads to ``location``."""
    parts = [(number, data[a:b]) for number, _, a, b in fields(data, start, stop)]
    once = [field for field in parts if field[0] not in (_DIMS, _EXTERNAL_DATA)]
    said = dict(once)
    if len(said) < len(once) or said.keys() != {_DATA_TYPE, _NAME, _DATA_LOCATION}:
        return None
    dtype = _DTYPES.get(_number(said[_DATA_TYPE]))
    place = [_pair(content) for number, content in parts if number == _EXTERNAL_DATA]
    begin, size = (dict(place).get(key, "") for key in ("offset", "length"))
    if (
        dtype is None
        or _number(said[_DATA_LOCATION]) != _EXTERNAL
        or sorted(key for key, _ in place) != ["length", "location", "offset"]
        or dict(place)["location"] != location
        or not all(text.isascii() and text.isdigit() and len(text) < 16 for text in (begin, size))
    ):
        return None
    shape = tuple(
        axis for number, content in parts if number == _DIMS for axis in _numbers(content)
    )
    item = np.dtype(dtype).itemsize
    if int(size) != math.prod(shape) * item or int(begin) % item:
        return None
    stop = int(begin) + int(size)
    return SharedTensor(said[_NAME].decode(), np.dtype(dtype), shape, int(begin), stop)


def _pair(content: bytes) -> tuple[str, str]:
    """Key and value of an entry of ``external_data``."""
    found = [
        (number, content[a:b].decode()) for number, _, a, b in fields(content, 0, len(content))
    ]
    if [number for number, _ in found] != [1, 2]:
        raise ValueError(f"{content[:40]!r} is no key with a value")
    return found[0][1], found[1][1]


def _numbers(content: bytes) -> Iterator[int]:
    """Whole numbers that follow each other."""
    start = 0
    while start < len(content):
        value, start = varint(content, start, len(content))
        yield value


def _number(content: bytes) -> int:
    return varint(content, 0, len(content))[0]
