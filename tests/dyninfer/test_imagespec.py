from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import ColorOrder, ImageSpec, Placement, ResizeMode

SIDES = st.integers(1, 3000)
SPECS = st.builds(
    ImageSpec,
    height=st.integers(1, 80).map(lambda n: 32 * n),
    width=st.integers(1, 80).map(lambda n: 32 * n),
    resize=st.sampled_from(ResizeMode),
)


@given(SPECS, SIDES, SIDES)
def test_every_image_lies_inside_the_tensor(spec, width, height) -> None:
    placed = spec.place(width, height)
    assert placed.resized_width >= 1
    assert placed.resized_height >= 1
    assert placed.left >= 0
    assert placed.top >= 0
    assert placed.left + placed.resized_width <= spec.width
    assert placed.top + placed.resized_height <= spec.height


@given(SPECS, SIDES, SIDES, st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5))
def test_boxes_find_their_way_back(spec, width, height, corners) -> None:
    boxes = (np.array(corners).reshape(-1, 4) * [width, height, width, height]).astype(np.float32)
    placed = spec.place(width, height)
    there = placed.to_tensor(boxes)
    assert there.dtype == np.float32
    back = placed.to_image(there)
    assert back.shape == boxes.shape
    unit = np.spacing(np.float32(4096)) / min(placed.scale_x, placed.scale_y)
    np.testing.assert_allclose(back, boxes, rtol=0, atol=2 * unit + 1e-4)


@given(SPECS, SIDES, SIDES)
def test_the_corners_of_the_image_are_the_corners_of_its_window(spec, width, height) -> None:
    placed = spec.place(width, height)
    found = placed.to_tensor(np.array([[0, 0, width, height]], np.float32))[0]
    window = [
        placed.left,
        placed.top,
        placed.left + placed.resized_width,
        placed.top + placed.resized_height,
    ]
    np.testing.assert_allclose(found, window, rtol=1e-6)


@given(SPECS, SIDES, SIDES)
def test_boxes_outside_are_clipped_to_the_image(spec, width, height) -> None:
    far = np.array([[-1e6, -1e6, 1e6, 1e6]], np.float32)
    assert spec.place(width, height).to_image(far).tolist() == [[0, 0, width, height]]


def test_no_boxes_stay_no_boxes() -> None:
    placed = ImageSpec(64, 64).place(10, 20)
    assert placed.to_image(np.empty((0, 4), np.float32)).shape == (0, 4)
    assert placed.to_tensor(np.empty((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, Placement(640, 480, 640, 480, 0, 80)),
        (480, 640, Placement(480, 640, 480, 640, 80, 0)),
        (1280, 720, Placement(1280, 720, 640, 360, 0, 140)),
        (500, 375, Placement(500, 375, 640, 480, 0, 80)),
        (1000, 667, Placement(1000, 667, 640, 427, 0, 106)),  # odd padding: more at the bottom
        (1, 1, Placement(1, 1, 640, 640, 0, 0)),
        (30_000, 3, Placement(30_000, 3, 640, 1, 0, 319)),
        (3, 30_000, Placement(3, 30_000, 1, 640, 319, 0)),
    ],
)
def test_a_letterbox_is_placed_as_the_published_preprocessing_does(width, height, expected) -> None:
    assert ImageSpec(640, 640).place(width, height) == expected


def test_the_other_modes() -> None:
    stretch = ImageSpec(64, 32, ResizeMode.STRETCH).place(10, 10)
    assert stretch == Placement(10, 10, 32, 64)
    corner = ImageSpec(64, 64, ResizeMode.PAD_BOTTOM_RIGHT).place(100, 50)
    assert corner == Placement(100, 50, 64, 32)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("order", list(ColorOrder))
@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("size", [(64, 96), (13, 200), (200, 13), (1, 1), (300, 400)])
def test_tensors_equal_the_definition(mode, order, size) -> None:
    spec = ImageSpec(64, 96, mode, order, (10, 20, 30), (50, 60, 70), pad_value=114)
    image = picture(*size)
    placed = spec.place(size[1], size[0])
    expected = np.full((64, 96, 3), 114, np.float64)
    small = cv2.resize(image, (placed.resized_width, placed.resized_height))
    rows = slice(placed.top, placed.top + placed.resized_height)
    columns = slice(placed.left, placed.left + placed.resized_width)
    expected[rows, columns] = small
    if order is ColorOrder.RGB:
        expected = expected[..., ::-1]
    expected = (expected - [10, 20, 30]) / [50, 60, 70]
    found = spec.prepare(image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), rtol=0, atol=1e-5)


def test_the_published_normalisation_is_rgb_from_0_to_1() -> None:
    tensor = ImageSpec(32, 32).prepare(np.full((32, 32, 3), (0, 51, 255), np.uint8))
    np.testing.assert_allclose(tensor[:, 0, 0], [1, 0.2, 0], atol=1e-7)
    padded = ImageSpec(32, 64).prepare(np.zeros((32, 32, 3), np.uint8))
    np.testing.assert_allclose(padded[:, 5, 3], 114 / 255, atol=1e-7)


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(ResizeMode))
def test_a_used_buffer_gives_the_same_as_a_new_one(height, width, mode) -> None:
    spec = ImageSpec(64, 96, mode, mean=(1, 2, 3))
    image = picture(height, width)
    buffer = np.full((3, 64, 96), np.nan, np.float32)
    assert spec.prepare(image, buffer) is buffer
    np.testing.assert_array_equal(buffer, spec.prepare(image))


def test_the_picture_is_not_changed_and_may_be_a_view() -> None:
    image = picture(80, 80)
    before = image.copy()
    flipped = ImageSpec(64, 64).prepare(image[:, ::-1])
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(
        flipped, ImageSpec(64, 64).prepare(np.ascontiguousarray(image[:, ::-1]))
    )
