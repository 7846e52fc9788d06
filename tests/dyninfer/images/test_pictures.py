from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from dyninfer import InputError
from dyninfer.images.pictures import annotate, check_image, class_colour, find_images, read_image
from dyninfer.results.answers import Classification, Detections
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


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), ""),
        (b"PK\x03\x04" * 30, "not a picture"),
    ],
)
def test_what_is_not_a_picture_is_refused(tmp_path, content, part) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with support.refuses(InputError, "broken.jpg", part):
        read_image(path)


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


def test_pictures_of_a_folder_are_found_sorted(tmp_path) -> None:
    assert find_images(tmp_path) == []
    (tmp_path / "deep").mkdir()
    for name in ("b.JPG", "a.png", "deep/c.webp", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [str(p.relative_to(tmp_path)) for p in find_images(tmp_path)] == [
        "a.png",
        "b.JPG",
        "deep/c.webp",
    ]


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidences=np.full(len(boxes), 0.9, np.float32),
        class_ids=np.arange(len(boxes)),
        class_names=tuple(f"thing {i}" for i in range(len(boxes))),
        easiness=0.25,
    )


def test_nothing_found_draws_the_badge_alone() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    drawn = annotate(picture, detections())
    assert not picture.any()
    assert drawn[150:].any()
    assert not drawn[:150].any()
    assert not annotate(picture, detections(), badge=False).any()


def test_a_box_is_drawn_in_its_colour_where_it_is() -> None:
    drawn = annotate(np.zeros((400, 400, 3), np.uint8), detections((100, 150, 300, 350)))
    assert tuple(drawn[250, 100]) == class_colour(0)
    assert tuple(drawn[350, 200]) == class_colour(0)
    assert not drawn[200:300, 150:250].any()


@pytest.mark.parametrize("size", [(1, 1), (8, 2000), (2000, 8), (1500, 1500)])
def test_any_size_and_boxes_at_the_edges_can_be_drawn(size: tuple[int, int]) -> None:
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    drawn = annotate(picture, detections((0, 0, width, height), (0, 0, 0, 0)))
    assert drawn.shape == picture.shape


def test_the_best_classes_stand_in_the_corner_and_the_way_below() -> None:
    picture = np.full((400, 400, 3), 128, np.uint8)
    names = tuple(f"thing {i}" for i in range(9))
    answer = Classification(np.arange(9), np.linspace(0.9, 0.1, 9).astype(np.float32), names)
    drawn = annotate(picture, answer, badge=False)
    colours = {tuple(colour) for colour in drawn[:, 0].tolist()}
    assert colours == {(128, 128, 128), *(class_colour(i) for i in range(5))}
    assert (drawn[200:] == 128).all()
    branch = annotate(picture, answer, "branch 0")
    assert (branch[:200] == drawn[:200]).all()
    assert (branch[350:] != annotate(picture, answer)[350:]).any()


def test_neighbouring_classes_have_different_colours() -> None:
    colours = [class_colour(i) for i in range(80)]
    assert len(set(colours)) == 80
    gaps = [np.abs(np.subtract(a, b)).max() for a, b in pairwise(colours)]
    assert min(gaps) > 60
