from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from dyninfer import InputError
from dyninfer.images import pictures
from dyninfer.images.pictures import check_image, check_max_pixels, read_image
from tests import support


@pytest.fixture
def written(tmp_path):
    def write(array: np.ndarray, name: str = "picture.png"):
        path = tmp_path / name
        assert cv2.imwrite(str(path), array)
        return path

    return write


def test_a_colour_picture_keeps_its_pixels(written) -> None:
    array = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    np.testing.assert_array_equal(read_image(written(array)), array)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_alpha_and_16_bit_files_become_8_bit_bgr(written, channels, dtype) -> None:
    top = 200 if dtype is np.uint8 else 200 * 257
    image = read_image(written(np.full((6, 9, channels), top, dtype)))
    assert (image.shape, image.dtype) == ((6, 9, 3), np.uint8)
    assert abs(int(image[0, 0, 0]) - 200) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1)])
def test_extreme_sizes_are_read(written, size) -> None:
    assert read_image(written(np.zeros((*size, 3), np.uint8))).shape == (*size, 3)


def test_a_name_that_is_not_ascii_is_read(written, tmp_path) -> None:
    path = written(np.zeros((4, 4, 3), np.uint8))
    renamed = path.rename(tmp_path / "Straße 道路.png")
    assert read_image(renamed).shape == (4, 4, 3)
    assert read_image(str(renamed)).shape == (4, 4, 3)


JPEG, PNG, WEBP, BMP = (
    cv2.imencode(suffix, np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))[
        1
    ].tobytes()
    for suffix in (".jpg", ".png", ".webp", ".bmp")
)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty (0 bytes)"),
        (b"not a picture at all", "is not a picture but text"),
        ("Straße".encode()[:5], "is not a picture but text"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG picture that is cut off: it ends after 8 bytes"),
        (PNG[:-100], "is a PNG picture that is cut off"),
        (PNG[:20] + bytes(40) + PNG[60:], "is a PNG picture that is damaged"),
        (JPEG[:200], "is a JPEG picture that is cut off"),
        (b"\xff\xd8\xff\xe0" + bytes(50) + b"\xff\xd9", "is a JPEG picture that is damaged"),
        (WEBP[:-10], "is a WebP picture that is cut off"),
        (BMP[:-10], "is a BMP picture that is cut off"),
        (b"PK\x03\x04" * 30, "is not a picture but a ZIP archive"),
        (b"\n<!DOCTYPE html><html>404", "is not a picture but an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC picture, which is not read; convert it"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "is an AVIF picture, which is not read"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "is not a picture but a video"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), "is not a picture but a video"),
        (b'<?xml version="1.0"?>\n<svg/>', "is an SVG drawing, which is not read"),
        (b"\xff\x0a" + bytes(40), "is a JPEG XL picture, which is not read"),
        (bytes(128) + b"DICM", "is a DICOM picture, which is not read"),
        (b"%PDF-1.4", "is not a picture but a PDF document"),
        (bytes(1000), "is not a picture but only zeros"),
        (bytes(range(1, 256)), "is not a picture but a file of an unknown kind"),
    ],
)
def test_what_is_not_a_picture_is_called_what_it_is(tmp_path, content, part) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with support.refuses(InputError, f"broken.jpg {part}" if part[:2] == "is" else part):
        read_image(path)


def test_a_picture_too_large_for_opencv_says_its_size_and_the_limit(tmp_path) -> None:
    path = tmp_path / "long.pgm"
    path.write_bytes(b"P5 1100000 1 255\n" + bytes(1_100_000))
    with support.refuses(InputError, "long.pgm has 1100000 x 1 pixels", "1048576 on a side"):
        read_image(path)
    path.write_bytes(b"P5 33000 33000 255\n")
    with support.refuses(InputError, "has 33000 x 33000 pixels", "1073741824 in all"):
        read_image(path, 33_000**2)


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    with support.refuses(InputError, "nothing.jpg", "does not exist"):
        read_image(tmp_path / "nothing.jpg")
    with support.refuses(InputError, "folder"):
        read_image(tmp_path)


def test_colour_arrays_pass_as_they_are_and_grey_and_alpha_are_converted() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    assert check_image(colour) is colour
    grey = colour[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(check_image(array), np.repeat(grey[..., None], 3, 2))
    alpha = np.concatenate([colour, grey[..., None]], 2)
    np.testing.assert_array_equal(check_image(alpha), colour)


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (np.zeros((4, 4, 3), np.uint16), ("uint16", "uint8", "257")),
        (np.zeros((4, 4, 3), np.float32), ("float32", "infer")),
        (np.zeros((4, 4, 3), np.float64), ("float64", "infer")),
        (np.zeros((4, 4, 3), bool), ("bool",)),
        (np.zeros((2, 4, 4, 3), np.uint8), ("(2, 4, 4, 3)", "list")),
        (np.zeros((3, 40, 40), np.uint8), ("(3, 40, 40)", "channels first")),
        (np.zeros((4, 4, 2), np.uint8), ("(4, 4, 2)",)),
        (np.zeros(4, np.uint8), ("(4,)",)),
        (np.zeros((), np.uint8), ("()",)),
        (np.zeros((0, 4, 3), np.uint8), ("no pixels",)),
        (np.zeros((4, 0), np.uint8), ("no pixels",)),
    ],
)
def test_other_arrays_are_refused_with_a_hint(array, parts) -> None:
    with support.refuses(InputError, *parts):
        check_image(array)


@pytest.mark.parametrize(
    "shape", [(3,), (4, 4, 2), (2, 40, 40), (3, 1, 40, 40, 3), (3, 1, 40, 40, 40)]
)
def test_channels_first_or_a_batch_is_said_only_where_it_looks_so(shape) -> None:
    with support.refuses(InputError) as caught:
        check_image(np.zeros(shape, np.uint8))
    assert str(caught.value).endswith("expected (height, width, 3) BGR")


def test_what_the_camera_says_of_orientation_is_obeyed_in_every_format(tmp_path) -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20, :30] = 255
    lying = Image.fromarray(np.rot90(upright))  # the camera was turned: 6 says by how much
    tags = Image.Exif()
    tags[0x0112] = 6
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        path = tmp_path / f"turned{suffix}"
        lying.save(path, exif=tags, lossless=True)
        assert np.abs(read_image(path).astype(int) - upright).mean() < 3, suffix


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_a_picture_that_ends_too_soon_is_refused(tmp_path, suffix, share) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    data = cv2.imencode(suffix, whole)[1].tobytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with support.refuses(InputError, f"cut{suffix}"):
        read_image(path)


def test_of_a_moving_picture_the_first_frame_is_read(tmp_path) -> None:
    frames = [np.full((40, 60, 3), value, np.uint8) for value in (200, 10)]
    for suffix in (".webp", ".png"):
        path = tmp_path / f"moving{suffix}"
        first, second = map(Image.fromarray, frames)
        first.save(path, save_all=True, append_images=[second], lossless=True)
        np.testing.assert_array_equal(read_image(path), frames[0])


@pytest.mark.parametrize(
    ("size", "max_pixels", "read"),
    [(100, 1, 100), (2**27, 1, 2**26 + 16), (2**27, 1000, 2**26 + 16_000)],
)
def test_no_more_of_a_file_is_read_than_a_picture_of_so_many_pixels_may_have(
    tmp_path, monkeypatch, size, max_pixels, read
) -> None:
    """16 bytes for each, and 64 MiB of what else is in it."""
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(size)
    limits: list[int] = []
    monkeypatch.setattr(pictures, "read_file", lambda _path, most: limits.append(most) or b"")
    with support.refuses(InputError, "is empty"):
        read_image(path, max_pixels)
    assert limits == [read]


def test_a_limit_of_pixels_is_a_whole_number_from_1_up() -> None:
    assert [check_max_pixels(number) for number in (1, 10**9)] == [1, 10**9]
    for wrong in (0, -1, 1.0, "1", None):
        with support.refuses(InputError, f"max_pixels is {wrong!r}, expected a whole number"):
            check_max_pixels(wrong)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("https://a/", "https://a/{} is a URL"),
        ("ftp://a/a/", "ftp://a/a/{} is a URL"),
        ("a\0/////////", "'a\\x00/////////{}' cannot be read: "),
    ],
)
def test_of_a_long_name_200_characters_are_told(start: str, told: str) -> None:
    rest = 200 - len(start)
    with support.refuses(InputError, told.format("x" * rest)):
        read_image(start + "x" * 300)


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 300, "File name too long"), ("a\0b", "embedded null")]
)
def test_why_a_file_cannot_be_read_is_told_without_numbers_of_the_system(name, reason) -> None:
    with support.refuses(InputError, f"cannot be read: {reason}"):
        read_image(name)
