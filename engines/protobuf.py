"""The fields of protobuf's messages (https://protobuf.dev/programming-guides/encoding/)."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, BYTES = 0, 2
"""Types on the wire: a whole number, and bytes, which a message, a text and packed numbers are."""
_FIXED = {1: 8, 5: 4}


def fields(data: mmap.mmap | bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and place of the value of every field of a message.

    Whatever another reader might take in another way is an error.

    Raises:
        ValueError: it is no message.
    """
    while start < stop:
        tag, begin = data[start], start + 1
        if tag >= 0x80:
            tag, begin = varint(data, start, stop)
        kind, end = tag & 7, begin
        if kind == VARINT:
            _, end = varint(data, begin, stop)
        elif kind == BYTES:
            size, begin = varint(data, begin, stop)
            end = begin + size
        elif kind in _FIXED:
            end += _FIXED[kind]
        if (end == begin and kind != BYTES) or end > stop or tag >= 1 << 32:
            raise ValueError(f"broken at byte {start}")
        yield tag >> 3, kind, begin, end
        start = end


def varint(data: mmap.mmap | bytes, start: int, stop: int) -> tuple[int, int]:
    """The whole number at ``start``, and where it ends.

    Raises:
        ValueError: it has more than ten bytes, or does not end before ``stop``.
    """
    value = 0
    for place in range(min(10, stop - start)):
        value |= (data[start + place] & 0x7F) << 7 * place
        if data[start + place] < 0x80:
            return value, start + place + 1
    raise ValueError(f"broken at byte {start}")


def written(number: int, value: bytes | int) -> bytes:
    """A field: bytes as they are, or a whole number that is not negative."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
