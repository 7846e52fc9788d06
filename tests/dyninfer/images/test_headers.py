"""What a picture's file announces is what OpenCV decodes, and is looked at first."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer import InputError
from dyninfer.images.folders import SUFFIXES, find_images
from dyninfer.images.headers import picture_size
from dyninfer.images.pictures import read_image
from tests import support
from tests.dyninfer.cli.run import run

LIMIT = 5000
GREY = frozenset({".pbm", ".pgm"})
WRITTEN = sorted(SUFFIXES | {".gif"})


def encoded(suffix: str, height: int = 37, width: int = 53) -> bytes:
    channels = 1 if suffix in GREY else 3
    picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    try:
        done, data = cv2.imencode(suffix, picture)
    except cv2.error:
        done = False
    if not done:
        pytest.skip(f"this OpenCV does not write {suffix}")
    return data.tobytes()


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 53), (300, 2)])
def test_the_size_of_every_format_is_read(suffix, height, width) -> None:
    assert picture_size(encoded(suffix, height, width)) == (width, height)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_file_that_is_cut_off_says_nothing_wrong(suffix) -> None:
    data = encoded(suffix)
    assert {picture_size(data[:length]) for length in range(len(data))} <= {None, (53, 37)}


def tiff(order: str, large: bool, width: int, height: int, *more: tuple[int, int]) -> bytes:
    """A directory alone, of files with offsets of 32 or 64 bits."""
    tags = [(256, width), (257, height), *more]
    mark = b"II" if order == "<" else b"MM"
    if large:
        head = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(tags))
        return head + b"".join(struct.pack(order + "HHQI4x", tag, 4, 1, v) for tag, v in tags)
    head = mark + struct.pack(order + "HIH", 42, 8, len(tags))
    return head + b"".join(struct.pack(order + "HHII", tag, 4, 1, v) for tag, v in tags)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("large", [False, True])
def test_both_kinds_and_orders_of_tiff_are_read_and_tiles_count(order, large) -> None:
    assert picture_size(tiff(order, large, 640, 480)) == (640, 480)
    tiles = (322, 30_000), (323, 40_000)
    assert picture_size(tiff(order, large, 6, 4, *tiles)) == (30_000, 40_000)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"P6 # of a camera\n640 #x\r480\n255\n", (640, 480)),
        (b"P5\n" + b"9" * 5000 + b" 1\n255\n", (int("9" * 20), 1)),
        (b"\xff\xd8\xff\xfe\0\4ab\0\0\xff\xff\xc0\0\x11\x08\0\x09\0\x08", (8, 9)),
        (b"\xff\xd8\xff\xda\0\4ab\xff\xc0\0\x11\x08\0\x09\0\x08", None),
        (b"BM" + bytes(12) + struct.pack("<IHH", 12, 8, 9), (8, 9)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, 8, -9), (8, 9)),
        (
            b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\x03\xff\xff\x01",
            (2**18, 2**17),
        ),
        (b"II*\0\x08\0\0\0\xff\xff", None),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, None),  # further than any file is long
        (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\1ftyp" + b"\xff" * 8, None),
        (b"", None),
        (b"%PDF", None),
    ],
)
def test_rare_headers(data, size) -> None:
    assert picture_size(data) == size


def png_of(width: int, height: int) -> bytes:
    """Black, 1 bit a pixel: a thousandth of a byte for each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.png"
    path.write_bytes(png_of(20_000, 10_000))
    assert path.stat().st_size < 100_000
    return path


def test_a_small_file_of_a_very_large_picture_is_refused_before_it_is_decoded(large) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with support.refuses(InputError, "20000 x 10000", "100000000", "max_pixels"):
        read_image(large)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_chunk_that_says_it_has_two_gigabytes_is_not_believed(tmp_path) -> None:
    data = bytearray(encoded(".png"))
    data[33] = 127
    (tmp_path / "x.png").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with support.refuses(InputError, "x.png"):
        read_image(tmp_path / "x.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("suffix", WRITTEN)
def test_no_picture_of_more_pixels_is_ever_decoded(suffix, tmp_path) -> None:
    """Files that were meddled with are refused, or have no more pixels than may be."""
    chosen, data, path = random.Random(0), encoded(suffix), tmp_path / f"x{suffix}"
    read = 0
    for _ in range(120):
        changed = bytearray(data)
        for _ in range(chosen.randint(1, 3)):
            changed[chosen.randrange(min(len(data), 200))] = chosen.choice((0, 1, 255, 127, 10))
        path.write_bytes(changed)
        try:
            height, width, _ = read_image(path, LIMIT).shape
        except InputError:
            continue
        assert height * width <= LIMIT
        read += 1
    assert read


def test_the_limit_is_told_to_whatever_reads_pictures(tmp_path, capsys) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    small = tmp_path / "small.png"
    small.write_bytes(encoded(".png"))
    with dyninfer.load(bundle, max_pixels=1000) as detector:
        for pictures in (small, [small]):
            with support.refuses(InputError, "53 x 37", "at most 1000"):
                detector(pictures)
        detector(cv2.imread(str(small)))  # it is there already
    with dyninfer.load(bundle) as detector:
        detector(small)
    for wrong in (0, -1, 1.5, "many"):
        with support.refuses(InputError, "max_pixels", repr(wrong)):
            dyninfer.load(bundle, max_pixels=wrong)
    out = str(tmp_path / "out")
    limit = ["--max-pixels", "1960"]
    assert run(capsys, "predict", str(bundle), str(small), "-o", out, *limit)[0] == 1
    assert run(capsys, "predict", str(bundle), str(small), "-o", out)[0] == 0
    status, _, err = run(
        capsys, "calibrate", str(bundle), "-i", str(small), "-i", f"{out}/annotated", *limit
    )
    assert status == 1
    assert "0 usable pictures" in err


@pytest.fixture
def strange(tmp_path) -> list[Path]:
    """What hangs, or does something, when it is opened."""
    pipe, link = tmp_path / "pipe.png", tmp_path / "device.png"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket.png"))
    bound.close()
    return [pipe, link, tmp_path / "socket.png"]


def test_what_is_no_regular_file_is_refused_and_never_opened(strange, monkeypatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    for path in strange:
        with support.refuses(InputError, path.name, "expected a file"):
            read_image(path)
    assert opened == []


def test_folders_and_commands_leave_it_alone(strange, tmp_path, capsys) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    assert find_images(tmp_path) == []
    for path in strange:
        for command in (["predict"], ["eval", "-i"], ["calibrate", "-i"]):
            status, out, err = run(capsys, command[0], str(bundle), *command[1:], str(path))
            assert (status, out) == (1, "")
            assert err.count("\n") <= 2
            assert len(err) < 1000
    assert not (tmp_path / "predictions").exists()
