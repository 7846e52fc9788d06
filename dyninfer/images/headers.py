"""How many pixels a picture's file announces, read before anything is decoded.

OpenCV has no such reader, and reads its own limit from the environment when it is imported. Known
are the formats of :data:`dyninfer.images.folders.SUFFIXES`, by their first bytes as OpenCV knows
them. Sources: the formats' specifications.
"""

from __future__ import annotations

import re
import struct

_LARGEST_IFD = 4096  # entries of a TIFF directory; usual ones have twenty
_NETPBM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d+)(?:\s|#[^\r\n]*[\r\n])+(\d+)\s")
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 16: "Q", 17: "Q"}
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of an encoded picture; None where it is of no known format.

    Where a format has several (the canvas and a frame, the picture and a tile), the largest of
    each: that much may be allocated.
    """
    try:
        for signature, read in _READERS:
            if data.startswith(signature):
                return read(data)
    except (struct.error, IndexError, ValueError, OverflowError):  # cut off, or beyond all files
        pass
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    """The first chunk; OpenCV allocates what any chunk says it has, so none may have too much."""
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    place = 8
    while place + 8 <= len(data):
        length = struct.unpack_from(">I", data, place)[0]
        if length > len(data) - place:
            return None
        place += 12 + length
    return (width, height) if kind == b"IHDR" else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The first frame header, wherever it is; what is no marker in between is skipped, too."""
    place = 2
    while True:
        place = data.index(b"\xff", place)
        while data[place] == 0xFF:
            place += 1
        marker = data[place]
        place += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue  # without a length
        if marker in (0xD9, 0xDA):  # the end, or pixels without a frame
            return None
        length = struct.unpack_from(">H", data, place)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 3)
            return width, height
        place += length


def _jpeg_2000(data: bytes) -> tuple[int, int] | None:
    """The reference grid of the code stream, which is the file itself or in a box of it."""
    place = 0
    if data.startswith(b"\0"):
        kind, length = b"", 0
        while kind != b"jp2c":
            place += length
            length, kind = struct.unpack_from(">I4s", data, place)
            if length == 1:  # a longer one follows
                length = struct.unpack_from(">Q", data, place + 8)[0]
                place, length = place + 8, length - 8
            if length < 8 and kind != b"jp2c":
                return None
        place += 8
    if data[place : place + 4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, place + 8)
    return max(0, right - left), max(0, bottom - top)


def _webp(data: bytes) -> tuple[int, int] | None:
    """The canvas, and every frame of either kind of coding."""
    if data[8:12] != b"WEBP":
        return None
    sizes = []
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        place += 8
        if kind == b"VP8X":
            sizes.append((1 + _three(data, place + 4), 1 + _three(data, place + 7)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, place + 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", data, place + 1)[0]
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
        elif kind == b"ANMF":
            sizes.append((1 + _three(data, place + 6), 1 + _three(data, place + 9)))
        place += length + length % 2
    return _largest(sizes)


def _three(data: bytes, place: int) -> int:
    return data[place] | data[place + 1] << 8 | data[place + 2] << 16


def _bmp(data: bytes) -> tuple[int, int] | None:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the oldest header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _gif(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _tiff(data: bytes) -> tuple[int, int] | None:
    """The first directory, in either byte order, of a file with offsets of 32 or 64 bits."""
    order = "<" if data[:2] == b"II" else ">"
    large = 43 in data[2:4]
    word, room = ("Q", 8) if large else ("I", 4)
    start = struct.unpack_from(order + word, data, room)[0]
    count = struct.unpack_from(order + ("Q" if large else "H"), data, start)[0]
    if count > _LARGEST_IFD:
        return None
    start, step = start + (8 if large else 2), 4 + 2 * room
    tags: dict[int, int] = {}
    for place in range(start, start + count * step, step):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if kind in _TIFF_TYPES:
            form, where = order + _TIFF_TYPES[kind], place + 4 + room
            if struct.calcsize(form) > room:
                where = struct.unpack_from(order + word, data, where)[0]
            tags[tag] = max(tags.get(tag, 0), struct.unpack_from(form, data, where)[0])
    if _WIDTH not in tags or _HEIGHT not in tags:
        return None
    tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    return _largest([(tags[_WIDTH], tags[_HEIGHT]), tile])


def _netpbm(data: bytes) -> tuple[int, int] | None:
    found = _NETPBM.match(data)
    return (_number(found[1]), _number(found[2])) if found else None


def _number(digits: bytes) -> int:
    return int(digits[:20])  # nobody has a picture of more digits, and Python refuses 4300


def _largest(sizes: list[tuple[int, int]]) -> tuple[int, int] | None:
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


_READERS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _jpeg_2000),
    (b"\xff\x4f\xff\x51", _jpeg_2000),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    (b"GIF8", _gif),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"P", _netpbm),
)
