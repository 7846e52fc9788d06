"""Whether an ONNX file is all that a stage is: weights may be kept elsewhere, which no hash covers.

ONNX lets a tensor say where its values are: in another file, and ONNX Runtime before 1.24 took any
file, and any address of the process's memory, for that. The format is protobuf's
(https://protobuf.dev/programming-guides/encoding/); numbers of fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from dyninfer.errors import EngineBuildError
from dyninfer.foreign_errors import let_through

_LOCATION = b"location"
"""The key without which no tensor says where its values are."""
_TENSOR = "tensor"
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_PARTS: dict[str, dict[int, str]] = {  # message -> number of a field -> the message that it holds
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
_LARGE = ("model", "graph", _TENSOR)
"""What holds weights, or most of what there is: to step over its parts is quicker than a search."""
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def check_self_contained(path: Path, what: str) -> None:
    """Refuse a file, of ``what`` for messages, that keeps weights elsewhere.

    Raises:
        EngineBuildError: it does, or it is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            outside = _keeps_weights_elsewhere(data)
    except (OSError, ValueError) as error:  # ValueError: it is empty
        let_through(error)
        raise EngineBuildError(
            f"{what} ({path}) cannot be read as an ONNX file: {error}; export the bundle again"
        ) from error
    if outside:
        raise EngineBuildError(
            f"{what} ({path}) keeps weights outside of the file, where no hash covers them; "
            "export the bundle again"
        )


def _keeps_weights_elsewhere(data: mmap.mmap) -> bool:
    rest = [("model", 0, len(data))]
    while rest:
        message, start, stop = rest.pop()
        if message not in _LARGE and data.find(_LOCATION, start, stop) < 0:
            continue
        for number, kind, begin, end in _fields(data, start, stop):
            if message == _TENSOR:
                if number in (_EXTERNAL_DATA, _DATA_LOCATION) and any(data[begin:end]):
                    return True
            elif kind == _BYTES and number in _PARTS[message]:
                rest.append((_PARTS[message][number], begin, end))
    return False


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and place of the value of every field of a message.

    Whatever another reader might take in another way is an error.

    Raises:
        ValueError: it is no message.
    """
    while start < stop:
        tag, begin = data[start], start + 1
        if tag >= 0x80:
            tag, begin = _varint(data, start, stop)
        kind, end = tag & 7, begin
        if kind == _VARINT:
            _, end = _varint(data, begin, stop)
        elif kind == _BYTES:
            size, begin = _varint(data, begin, stop)
            end = begin + size
        elif kind in _FIXED:
            end += _FIXED[kind]
        if (end == begin and kind != _BYTES) or end > stop or tag >= 1 << 32:
            raise ValueError(f"broken at byte {start}")
        yield tag >> 3, kind, begin, end
        start = end


def _varint(data: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    """A whole number, and where it ends."""
    value = 0
    for place in range(min(10, stop - start)):
        value |= (data[start + place] & 0x7F) << 7 * place
        if data[start + place] < 0x80:
            return value, start + place + 1
    raise ValueError(f"broken at byte {start}")
