"""Tensors in the safetensors format, https://huggingface.co/docs/safetensors (its section Format).

A length (8 bytes, little-endian), a JSON object of ``name -> {dtype, shape, data_offsets}`` of that
length, and all numbers one after another. Nothing in it can run.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch import Tensor

from dyninfer.bundle.documents import first_problem, parse_json

_LENGTH = 8
_LARGEST_HEADER = 100 << 20  # bytes, the format's own limit
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_Count = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
_Place = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]


class _Entry(BaseModel):
    dtype: str
    shape: Annotated[tuple[_Count, ...], Field(max_length=64)]
    data_offsets: tuple[_Place, _Place]


_HEADER = TypeAdapter(dict[str, _Entry])


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file with these first bytes and this size may be one."""
    length = int.from_bytes(start[:_LENGTH], "little")
    return start[_LENGTH : _LENGTH + 1] == b"{" and length <= min(size - _LENGTH, _LARGEST_HEADER)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or of numbers that are not supported; says how.
    """
    if sys.byteorder != "little":
        raise ValueError("its numbers are little-endian, those of this machine are not")
    with path.open("rb") as file:
        header = parse_json(file.read(int.from_bytes(file.read(_LENGTH), "little")))
        size = path.stat().st_size - file.tell()
        if not isinstance(header, dict):
            raise ValueError(f"its header is a {type(header).__name__}, expected an object")
        header.pop("__metadata__", None)
        try:
            entries = _HEADER.validate_python(header)
        except ValidationError as error:
            raise ValueError(f"its header is not understood: {first_problem(error)}") from None
        found, end = {}, 0
        for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
            first, last = entry.data_offsets
            if first != end or not first <= last <= size:
                raise ValueError(
                    f"{name} has the bytes {first} to {last} of {size}, expected from {end} on"
                )
            found[name], end = _tensor(name, entry, file.read(last - first)), last
        if file.read(1):
            raise ValueError("numbers follow that belong to no tensor")
    return {name: found[name] for name in entries}


def _tensor(name: str, entry: _Entry, data: Any) -> Tensor:
    if entry.dtype not in _DTYPES:
        raise ValueError(f"{name} is of {entry.dtype}, expected one of {', '.join(_DTYPES)}")
    dtype, count = _DTYPES[entry.dtype], math.prod(entry.shape)
    first, last = entry.data_offsets
    if len(data) != last - first or len(data) != count * dtype.itemsize:
        raise ValueError(f"{name} has {len(data)} bytes, expected {count} numbers ({entry.dtype})")
    if not data:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(entry.shape)
