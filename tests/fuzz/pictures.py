"""Pictures of all formats that are cut, changed, or claim to be of another size."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from random import Random

import cv2
import numpy as np

import dyninfer
from dyninfer.images.folders import SUFFIXES
from dyninfer.images.pictures import read_image
from tests import support
from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.target import UnexpectedError

SIDES = (0, 1, 2, 255, 65_535, 100_000, 2**31 - 1, 2**32 - 1)


class Pictures:
    """Read by path, and given to a detector."""

    def __init__(self, material: Path) -> None:
        self._encoded: list[tuple[str, bytes]] = []
        rng = np.random.default_rng(0)
        for suffix in sorted(SUFFIXES):
            for shape in ((7, 5, 3), (3, 40), (6, 6, 4)):
                for kind in (np.uint8, np.uint16):
                    pixels = rng.integers(0, np.iinfo(kind).max, shape, kind)
                    try:
                        made, data = cv2.imencode(suffix, pixels)
                    except cv2.error:  # a format that has no such pictures
                        continue
                    if made:
                        self._encoded.append((suffix, data.tobytes()))
        self._detector = dyninfer.load(support.write_static(material / "some.dyn"))

    def make(self, rng: Random, folder: Path) -> None:
        suffix, data = rng.choice(self._encoded)
        if rng.random() < 0.3:
            data = _claim_size(rng, suffix, data)
        if rng.random() < 0.7:
            data = mutate_bytes(rng, data)
        if suffix == ".png" and rng.random() < 0.8:
            data = _with_checksums(data)
        if rng.random() < 0.1:
            suffix = rng.choice(sorted(SUFFIXES))
        path = folder / f"picture{suffix}"
        match rng.randrange(200):
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to(rng.choice(("/dev/zero", "/dev/null", path.name, "/", "nowhere")))
            case _:
                path.write_bytes(data)

    def feed(self, folder: Path) -> None:
        (path,) = folder.iterdir()
        image = read_image(path)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UnexpectedError(f"a picture is {image.dtype} {image.shape}")
        self._detector(path)


def _claim_size(rng: Random, suffix: str, data: bytes) -> bytes:
    """The same picture, whose header tells of other sides."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    match suffix:
        case ".png":
            return data[:16] + struct.pack(">II", width, height) + data[24:]
        case ".bmp" | ".dib":
            return data[:18] + struct.pack("<II", width, height) + data[26:]
        case ".pgm" | ".ppm" | ".pbm":
            return re.sub(rb"\d+ \d+", b"%d %d" % (width, height), data, count=1)
        case ".jpg" | ".jpeg" | ".jpe":
            place = max(data.find(b"\xff\xc0"), 0) + 5
            sides = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
            return data[:place] + sides + data[place + 4 :]
        case ".jp2":
            place = max(data.find(b"ihdr"), 0) + 4
            return data[:place] + struct.pack(">II", height, width) + data[place + 8 :]
        case ".tif" | ".tiff":
            return _tiff_with_sides(data, width, height)
    return data


def _tiff_with_sides(data: bytes, width: int, height: int) -> bytes:
    """Of a little-endian file: tags 256 and 257 of its first directory."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        if tag in (256, 257):
            side = width if tag == 256 else height
            struct.pack_into("<HII", changed, entry + 2, 4, 1, side)
    return bytes(changed)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks' checksums fit what is in them."""
    made, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = min(place + 8 + length, len(data) - 4)
        made += data[place:end] + struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(made)
