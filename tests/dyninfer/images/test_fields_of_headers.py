"""Sizes in headers that are made by hand: each field at and beside the place where it belongs."""

from __future__ import annotations

import struct

import pytest

from dyninfer.images.headers import picture_size

FRAME = b"\xff\xc0\0\x11\x08\0\x09\0\x08"  # 8 x 9
HIDDEN = b"\0\x0b\xff\xc0\0\x11\x08\0\1\0\1"  # what a segment may hold: no frame
WITHOUT_FRAME = (0xC4, 0xC8, 0xCC)


def after_marker(marker: int, *parts: bytes) -> tuple[int, int] | None:
    return picture_size(b"\xff\xd8\xff" + bytes([marker]) + b"".join(parts))


@pytest.mark.parametrize("marker", [0x00, 0x01, 0xD0, 0xD4, 0xD7, 0xD8])
def test_markers_of_a_jpeg_that_have_no_length(marker) -> None:
    assert after_marker(marker, FRAME) == (8, 9)


@pytest.mark.parametrize("marker", [0x02, 0xBF, *WITHOUT_FRAME, 0xDB, 0xE0, 0xFE])
def test_segments_of_a_jpeg_are_skipped_with_what_they_hold(marker) -> None:
    assert after_marker(marker, HIDDEN, FRAME) == (8, 9)


@pytest.mark.parametrize("marker", [n for n in range(0xC0, 0xD0) if n not in WITHOUT_FRAME])
def test_frames_of_all_codings_of_a_jpeg(marker) -> None:
    assert after_marker(marker, FRAME[2:]) == (8, 9)


@pytest.mark.parametrize("marker", [0xD9, 0xDA])
def test_no_frame_of_a_jpeg_follows_its_end_or_pixels(marker) -> None:
    assert after_marker(marker, HIDDEN, FRAME) is None


def png(kind: bytes, last: int) -> bytes:
    """Of 8 x 9 pixels; the last chunk says how long it is, and is 12 bytes in all."""
    head = struct.pack(">I4sIIBBBBBI", 13, kind, 8, 9, 1, 0, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I4sI", last, b"IEND", 0)


@pytest.mark.parametrize(
    ("kind", "last", "size"),
    [
        (b"IHDR", 0, (8, 9)),
        (b"AHDR", 0, None),
        (b"IHDS", 0, None),
        (b"IHDR", 12, (8, 9)),
        (b"IHDR", 13, None),  # more than there is
    ],
)
def test_chunks_of_a_png(kind, last, size) -> None:
    assert picture_size(png(kind, last)) == size


@pytest.mark.parametrize(
    ("last", "kept", "size"), [(8, 8, (8, 9)), (9, 8, None), (2**31, 7, (8, 9))]
)
def test_of_the_last_chunk_of_a_png_the_length_counts_once_its_kind_is_there(
    last, kept, size
) -> None:
    assert picture_size(png(b"IHDR", last)[: kept - 12]) == size


GRID = struct.pack(">4sHH4I", b"\xff\x4f\xff\x51", 41, 0, 11, 14, 3, 5)  # 8 x 9


def box(kind: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(data) if length is None else length, kind) + data


@pytest.mark.parametrize(
    ("boxes", "size"),
    [
        (box(b"jp2c", GRID), (8, 9)),
        (box(b"jp2c", GRID, length=0), (8, 9)),  # to the end of the file
        (box(b"jp2c", struct.pack(">Q", 100) + GRID, length=1), (8, 9)),
        (box(b"ftyp") + box(b"jp2h", b"jp2c") + box(b"jp2c", GRID), (8, 9)),
        (box(b"free", b"abc", length=7) + box(b"jp2c", GRID), None),
        (box(b"free", struct.pack(">Q4s", 20, b"abcd"), 1) + box(b"jp2c", GRID), (8, 9)),
        (box(b"free", struct.pack(">Q", 16), 1) + box(b"jp2c", GRID), (8, 9)),
        (box(b"free", struct.pack(">Q", 15), 1) + box(b"jp2c", GRID), None),
        (box(b"xml ", length=0) + box(b"jp2c", GRID), None),  # to the end: nothing comes after it
        (box(b"xyz\0", b"\0\0\0jp2c" + GRID, length=7), None),  # no box is shorter than its head
        (box(b"jp2c", GRID.replace(b"\x51", b"\x50")), None),
        (box(b"jp2c", GRID.replace(b"\x51", b"\x52")), None),
    ],
)
def test_boxes_of_a_jpeg_2000(boxes, size) -> None:
    assert picture_size(b"\0\0\0\x0cjP  \r\n\x87\n" + boxes) == size


@pytest.mark.parametrize(
    ("sides", "size"),
    [((8, 9, 0, 0), (8, 9)), ((8, 9, 9, 0), (0, 9)), ((8, 9, 0, 10), (8, 0))],
)
def test_no_side_of_a_jpeg_2000_is_below_0(sides, size) -> None:
    assert picture_size(GRID[:8] + struct.pack(">4I", *sides)) == size


def three(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


LOSSY = b"VP8 ", bytes(6) + struct.pack("<HH", 0x4000 | 0x3FFF, 0xC000 | 300)
LOSSLESS = b"VP8L", b"\x2f" + struct.pack("<I", 0x1FFF | 299 << 14 | 0xF << 28)
CANVAS = b"VP8X", bytes(4) + three(0x10203) + three(0x20104)
FRAMED = b"ANMF", bytes(6) + three(0x10203) + three(0x20104) + bytes(4)


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        ([LOSSY], (0x3FFF, 300)),
        ([LOSSLESS], (0x2000, 300)),
        ([CANVAS], (0x10204, 0x20105)),
        ([FRAMED], (0x10204, 0x20105)),
        ([(b"ODD ", b"12345"), LOSSY], (0x3FFF, 300)),  # padded to an even length
        ([(b"EVEN", b"123456"), LOSSY], (0x3FFF, 300)),
        ([(b"AAAA", FRAMED[1])], None),
        ([(b"ZZZZ", FRAMED[1])], None),
        ([LOSSY, (b"XMP ", b"")], (0x3FFF, 300)),
    ],
)
def test_chunks_of_a_webp(chunks, size) -> None:
    written = [
        struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    ]
    assert picture_size(b"RIFF\0\0\0\0WEBP" + b"".join(written)) == size


@pytest.mark.parametrize("kind", [b"AVI ", b"WAVE", b"XEBP"])
def test_what_else_is_in_a_riff_is_no_webp(kind) -> None:
    lossy = struct.pack("<4sI", LOSSY[0], 10) + LOSSY[1]
    assert picture_size(b"RIFF\0\0\0\0WEBP" + lossy) == (0x3FFF, 300)
    assert picture_size(b"RIFF\0\0\0\0" + kind + lossy) is None


@pytest.mark.parametrize(("kept", "size"), [(7, (0x3FFF, 300)), (8, None)])
def test_a_chunk_of_a_webp_that_ends_after_its_head_makes_its_size_unknown(kept, size) -> None:
    lossy = struct.pack("<4sI", LOSSY[0], 10) + LOSSY[1]
    head = struct.pack("<4sI", b"VP8X", 10)[:kept]
    assert picture_size(b"RIFF\0\0\0\0WEBP" + lossy + head) == size


def test_the_largest_of_a_webp_is_that_of_most_pixels() -> None:
    def canvas(width: int, height: int) -> bytes:
        return b"VP8X\x0a\0\0\0" + bytes(4) + three(width - 1) + three(height - 1)

    for sizes in ([(1000, 1), (40, 30)], [(40, 30), (1000, 1)]):
        data = b"".join(canvas(*size) for size in sizes)
        assert picture_size(b"RIFF\0\0\0\0WEBP" + data) == (40, 30)


def tiff(*entries: tuple[int, int, bytes], after: bytes = b"") -> bytes:
    """A directory of (tag, type, four bytes), and what follows it."""
    packed = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + after


def long(tag: int, value: int) -> tuple[int, int, bytes]:
    return tag, 4, struct.pack("<I", value)


@pytest.mark.parametrize(
    ("kind", "form"), [(1, "B3x"), (3, "H2x"), (4, "I"), (6, "B3x"), (8, "H2x"), (9, "I")]
)
def test_whole_numbers_of_all_types_in_a_tiff(kind, form) -> None:
    width = 0xFEDC % 2 ** (8 * struct.calcsize(f"<{form[0]}"))
    written = struct.pack("<I", 0xFEDC)  # what is above the type's own bytes does not count
    assert picture_size(tiff((256, kind, written), long(257, 9))) == (width, 9)


@pytest.mark.parametrize("kind", [16, 17])
def test_a_long_number_of_a_tiff_lies_elsewhere(kind) -> None:
    place = 8 + 2 + 2 * 12
    entries = (256, kind, struct.pack("<I", place)), long(257, 9)
    assert picture_size(tiff(*entries, after=struct.pack("<Q", 2**33))) == (2**33, 9)
    large = struct.pack("<QHHQQHHQQ", 2, 256, kind, 1, 2**33, 257, 4, 1, 9)
    assert picture_size(b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + large) == (2**33, 9)


@pytest.mark.parametrize("kind", [0, 2, 5, 7, 10, 15, 18])
def test_what_is_no_whole_number_in_a_tiff_is_no_side(kind) -> None:
    assert picture_size(tiff((256, kind, b"\1\0\0\0"), long(257, 9))) is None


SIDES = long(256, 60), long(257, 40)


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        (SIDES, (60, 40)),
        ((long(256, 0), SIDES[1]), (0, 40)),
        (SIDES[:1], None),
        (SIDES[1:], None),
        ((*SIDES, long(256, 9)), (60, 40)),  # the larger of two
        ((long(256, 9), *SIDES), (60, 40)),
        ((*SIDES, long(322, 1_000_000)), (60, 40)),  # a tile has two sides
        ((*SIDES, long(323, 1_000_000)), (60, 40)),
        ((*SIDES, long(322, 50), long(323, 50)), (50, 50)),
        ((*SIDES, long(321, 5000), long(324, 5000), long(255, 99), long(258, 99)), (60, 40)),
    ],
)
def test_sides_and_tiles_of_a_tiff(entries, size) -> None:
    assert picture_size(tiff(*entries)) == size


def test_a_directory_may_lie_where_the_mark_of_long_offsets_would_be() -> None:
    classic = tiff(*SIDES)
    moved = classic[:4] + struct.pack("<I", 43) + bytes(35) + classic[8:]
    assert picture_size(moved) == (60, 40)


@pytest.mark.parametrize(("count", "size"), [(4096, (60, 40)), (4097, None)])
def test_a_directory_of_a_tiff_has_4096_entries_at_most(count, size) -> None:
    assert picture_size(tiff(*SIDES, *[long(1, 1)] * (count - 2))) == size


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"P1\n8 9\n", (8, 9)),
        (b"P6\n8 9\n", (8, 9)),
        (b"P0\n8 9\n", None),
        (b"P7\n8 9\n", None),
        (b"P6\n8 9", None),
        (b"GIF87a\x08\0\x09\1", (8, 265)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 40, -8, 9), (8, 9)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 11, 80_000, 9), (80_000, 9)),
        (b"BM" + bytes(12) + struct.pack("<Iii", 108, 80_000, 9), (80_000, 9)),
    ],
)
def test_simple_headers(data, size) -> None:
    assert picture_size(data) == size
