"""MindSpore's checkpoints (``.ckpt``): a protocol buffer of names and tensors.

It holds ``repeated Value value = 1``; a Value is ``string tag = 1`` and ``TensorProto tensor = 2``;
that is ``repeated int64 dims = 1``, ``string tensor_type = 2`` and ``bytes tensor_content = 3``. A
large tensor comes in several Values of the same tag, one part of its content in each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_START = re.compile(rb"\x0a[\x80-\xff]{0,9}[\x01-\x7f]\x0a[\x01-\x7f][\w.]+\x12")
_TYPES = {
    name: np.dtype(code)
    for name, code in (
        *(("Bool", "?"), ("UInt8", "u1"), ("Int8", "i1"), ("Int16", "<i2"), ("Int32", "<i4")),
        *(("Int64", "<i8"), ("Float16", "<f2"), ("Float32", "<f4"), ("Float64", "<f8")),
    )
}
_VARINT, _BYTES = 0, 2  # kinds of fields; the format has no others
_MOST_AXES = 16


def is_mindspore(start: bytes) -> bool:
    """Whether a file with these first bytes is one: the name of a tensor, and the tensor."""
    return _START.match(start) is not None


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by name.

    Raises:
        ValueError: the file is cut off or changed, or has other content than dense tensors.
    """
    contents: dict[str, list[memoryview]] = {}
    kinds: dict[str, tuple[tuple[int, ...], str]] = {}
    for number, value in _fields(memoryview(path.read_bytes())):
        if number != 1 or isinstance(value, int):
            raise ValueError(f"field {number} is none of a MindSpore checkpoint")
        tag, shape, kind, content = _value(value)
        if kinds.setdefault(tag, (shape, kind)) != (shape, kind):
            raise ValueError(f"the parts of {tag[:80]!r} differ in shape or type")
        contents.setdefault(tag, []).append(content)
    return {tag: _tensor(tag, *kinds[tag], b"".join(parts)) for tag, parts in contents.items()}


def _value(message: memoryview) -> tuple[str, tuple[int, ...], str, memoryview]:
    """Name, shape, type and content of a Value."""
    fields = dict(_fields(message))
    tag, tensor = fields.get(1), fields.get(2)
    if isinstance(tag, int) or isinstance(tensor, int) or tag is None or tensor is None:
        raise ValueError("an entry is no tensor with a name (a table of a map, or encrypted)")
    dims: list[int] = []
    kind, content = memoryview(b""), memoryview(b"")
    for number, value in _fields(tensor):
        if number == 1 and len(dims) < _MOST_AXES:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif number == 2 and not isinstance(value, int):
            kind = value
        elif number == 3 and not isinstance(value, int):
            content = value
        else:
            raise ValueError(f"field {number} is none of a tensor")
    return str(tag, "utf-8"), tuple(dims), str(kind, "utf-8"), content


def _tensor(tag: str, shape: tuple[int, ...], kind: str, content: bytes) -> Tensor:
    if kind not in _TYPES:
        raise ValueError(f"{tag[:80]!r} is of type {kind[:20]!r}, expected {', '.join(_TYPES)}")
    array = np.frombuffer(content, _TYPES[kind])
    if shape == (0,):  # how a single number is written
        shape = ()
    if math.prod(shape) != array.size:
        raise ValueError(f"{tag[:80]!r} has shape {shape}, but {array.size} values")
    return torch.from_numpy(array.reshape(shape).copy())


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Every field's number, and its whole number or its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES and value <= len(message) - at:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError(f"it is cut off or changed at byte {at} of a part")


def _varints(message: memoryview) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(message) and len(found) < _MOST_AXES:
        value, at = _varint(message, at)
        found.append(value)
    return found


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for place in range(min(10, len(message) - at)):
        byte = message[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number in it is cut off or too large")
