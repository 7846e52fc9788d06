from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from dyninfer import InputError
from dyninfer.images.inputs import EXPECTED, take_or_skip, take_picture
from dyninfer.images.pictures import MAX_PIXELS, read_image
from tests import support

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
PILLOW = PIL.Image.fromarray(np.ascontiguousarray(PICTURE[..., ::-1]))


def encoded(suffix: str = ".png", image: np.ndarray = PICTURE) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_encoded_bytes_are_the_picture_in_them(kind) -> None:
    found = take_picture(kind(encoded()))
    np.testing.assert_array_equal(found.image, PICTURE)
    assert found.decode_ms is not None


def test_the_time_to_decode_is_told_in_milliseconds_where_it_came_encoded(monkeypatch) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", itertools.count(7_000_000, 2_500_000).__next__)
    assert take_picture(encoded()).decode_ms == 2.5
    assert take_picture(PICTURE).decode_ms is None


@pytest.mark.parametrize(
    ("place", "told"), [(None, "an image of 0 bytes"), ((1, 3), "images[1] of 3: an image of")]
)
def test_a_picture_that_cannot_be_read_is_skipped_or_refused_with_its_place(
    caplog, place, told
) -> None:
    assert take_or_skip(b"", MAX_PIXELS, skip=True, place=place) is None
    assert take_or_skip(PICTURE, MAX_PIXELS, skip=True, place=place).image is PICTURE
    (message,) = caplog.messages
    assert message.startswith(told)
    assert message.endswith("; skipped")
    with support.refuses(InputError) as caught:
        take_or_skip(b"", MAX_PIXELS, skip=False, place=place)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "I;16"])
def test_a_picture_of_pillow_is_what_opencv_reads_of_its_file(mode, tmp_path) -> None:
    if mode == "I;16":
        image = PIL.Image.fromarray(np.arange(54, dtype=np.uint16).reshape(6, 9) * 1000)
    else:
        image = PILLOW.convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path, quality=100)
    opened = PIL.Image.open(path)
    np.testing.assert_allclose(
        take_picture(opened).image.astype(int), read_image(path), atol=3 if mode == "CMYK" else 0
    )


def test_a_picture_of_pillow_that_is_cut_off_or_has_no_range_is_refused(tmp_path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded()[:-40])
    with support.refuses(InputError, "Pillow", "decoded"):
        take_picture(PIL.Image.open(path))
    for mode in ("F", "I"):
        with support.refuses(InputError, f"{mode!r}", "convert('L')"):
            take_picture(PILLOW.convert(mode))


def test_neither_pillow_nor_torch_is_imported() -> None:
    program = (
        "import sys; from dyninfer.images.inputs import take_picture\n"
        "try: take_picture(object())\n"
        "except Exception as error: print(error)\n"
        "print('PIL' in sys.modules, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[0].startswith("an image is object, expected the path")
    assert out.splitlines()[1] == "False False"


RGB = torch.from_numpy(np.ascontiguousarray(PICTURE[..., ::-1])).permute(2, 0, 1)
TENSORS = {
    "channels first, RGB": RGB.contiguous(),
    "from 0 to 1": RGB.float() / 255,
    "channels last, BGR": torch.from_numpy(PICTURE),
    "batch": RGB[None],
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_torch_is_refused_with_the_line_that_makes_it_a_picture(name) -> None:
    image = images = TENSORS[name]
    with support.refuses(InputError, "Tensor", "numpy()") as caught:
        take_picture(image)
    (line,) = re.findall(
        r"(?:is|write) ([\[(]?\(?\w*[^;]*?numpy\(\)(?: for t in images\])?)(?:;|$)",
        str(caught.value),
    )
    made = eval(line, {"image": image, "images": images})  # noqa: S307  # our own message
    made = made[0] if isinstance(made, list) else made
    np.testing.assert_array_equal(take_picture(made).image, PICTURE)


@pytest.mark.parametrize(
    ("shape", "start"),
    [
        ((6, 9), "in BGR"),
        ((3, 9), "in BGR"),
        ((1, 6, 9), "in RGB"),
        ((3, 6, 4), "in RGB"),
        ((3, 6, 2), "in RGB"),
        ((2, 6, 9), "in BGR"),
        ((4, 6, 9), "in BGR"),
        ((3, 6, 3), "in BGR"),  # either way
        ((1, 6, 1), "in BGR"),
        ((2, 3, 6, 9), "a batch"),
        ((1, 1, 6, 9, 9), "in BGR"),
    ],
)
def test_channels_of_a_tensor_come_first_where_nothing_else_can_be_meant(shape, start) -> None:
    told = f"Tensor {shape} of torch.uint8, expected {EXPECTED}; {start}"
    with support.refuses(InputError, told):
        take_picture(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("", "empty path"),
        ("  ", "empty path"),
        ("https://example.org/street.jpg", "urllib.request.urlopen(url).read()"),
        ("HTTP://example.org/street.jpg", "urllib.request.urlopen(url).read()"),
        ("rtsp://camera/1", "detector.stream(url)"),
        ("s3://bucket/street.jpg", "download it"),
        ("file:///photos/street.jpg", "removeprefix('file://')"),
        ("data:image/png;base64,iVBORw0KGgo=", "b64decode"),
        ("data:image/png;base64," + "iVBORw0KGgo=" * 500, "b64decode"),
        ("~/street.jpg", "expanduser"),
        ("photos/*.jpg", "glob.glob"),
        (Path("nowhere.jpg"), "does not exist"),
        (None, "cv2.imread"),
        (0, "detector.stream('camera:0')"),
        (True, "VideoCapture.read()"),
        (cv2.VideoCapture(), "read its frames"),
        (io.BytesIO(encoded()), "image.read()"),
        ({"images": PICTURE}, "Detector.infer"),
        (iter([PICTURE]), "list(images)"),
        ({"a.jpg"}, "list(images)"),
        (np.array(["a.jpg", "b.jpg"]), "tolist()"),
        (b"", "empty (0 bytes)"),
        (os.fsencode(__file__), "os.fsdecode"),
        (b"not a picture", "not a picture but text"),
    ],
)
def test_what_people_have_instead_is_refused_with_what_to_write(image, part) -> None:
    with support.refuses(InputError, part) as caught:
        take_picture(image)
    assert len(str(caught.value)) < 600


def test_the_lines_to_write_for_urls_give_the_picture(tmp_path) -> None:
    import base64
    import urllib.request

    path = tmp_path / "x.png"
    path.write_bytes(encoded())
    url = f"file://{path}"
    for made in (
        urllib.request.urlopen(url).read(),  # a file of this test
        url.removeprefix("file://"),
        base64.b64decode(
            ("data:;base64," + base64.b64encode(encoded()).decode()).partition(",")[2]
        ),
    ):
        np.testing.assert_array_equal(take_picture(made).image, PICTURE)


def test_a_detector_takes_them_alone_and_in_lists(two_exits) -> None:
    images = [encoded(), PILLOW, PICTURE, memoryview(encoded())]
    expected = [two_exits(PICTURE).to_dict()["detections"]] * 4
    assert [two_exits(image).to_dict()["detections"] for image in images] == expected
    assert [found.to_dict()["detections"] for found in two_exits(images)] == expected
    assert [found.to_dict()["detections"] for found in two_exits(deque(images))] == expected
    with support.refuses(InputError, "images[1] of 2", "empty path"):
        two_exits([PICTURE, ""])
    with support.refuses(InputError, "urlopen"):
        two_exits("https://example.org/x.jpg")
