from __future__ import annotations

import math
import weakref
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import ColorOrder, ImageSpec, InputError, Placement, ResizeMode, Rounding
from dyninfer.images.prepare import Scratch
from dyninfer.images.spec import MAX_SIDE
from tests import support

SIDES = st.integers(1, 3000)
FITTING = [mode for mode in ResizeMode if mode is not ResizeMode.CENTER_CROP]
SPECS = st.builds(
    ImageSpec,
    height=st.integers(1, 80).map(lambda n: 32 * n),
    width=st.integers(1, 80).map(lambda n: 32 * n),
    resize=st.sampled_from(FITTING),
    rounding=st.sampled_from(Rounding),
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
        (667, 1000, Placement(667, 1000, 427, 640, 106, 0)),  # 426.9, and more at the right
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


def test_sizes_are_rounded_or_cut_to_whole_pixels() -> None:
    """639.36 pixels of 640, as of a picture that is a little too narrow."""
    near = ImageSpec(640, 640, ResizeMode.PAD_BOTTOM_RIGHT)
    cut = ImageSpec(640, 640, ResizeMode.PAD_BOTTOM_RIGHT, rounding=Rounding.TRUNCATE)
    assert near.place(1000, 997) == Placement(1000, 997, 640, 638)
    assert near.place(1000, 999) == Placement(1000, 999, 640, 639)
    assert near.place(1000, 996) == Placement(1000, 996, 640, 637)
    assert cut.place(1000, 996) == Placement(1000, 996, 640, 637)
    assert cut.place(1000, 999) == Placement(1000, 999, 640, 639)
    assert cut.place(1500, 1333) == Placement(1500, 1333, 640, 568)
    assert near.place(1500, 1333) == Placement(1500, 1333, 640, 569)
    assert cut.place(1000, 1) == Placement(1000, 1, 640, 1)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (256, 256, (256, 256, -16, -16)),
        (500, 375, (341, 256, -58, -16)),  # 341.33; (341 - 224) / 2 = 58.5 -> 58
        (375, 500, (256, 341, -16, -58)),
        (640, 480, (341, 256, -58, -16)),
        (100, 300, (256, 768, -16, -272)),
    ],
)
def test_a_centre_crop_is_placed_as_torchvision_does(width, height, expected) -> None:
    """Sizes by hand from its definition: Resize(256), then CenterCrop(224)."""
    spec = ImageSpec(224, 224, ResizeMode.CENTER_CROP, rounding=Rounding.TRUNCATE, short_side=256)
    assert spec.place(width, height) == Placement(width, height, *expected)


def test_a_crop_shows_the_centre_and_pads_what_is_missing() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 255
    spec = ImageSpec(4, 4, ResizeMode.CENTER_CROP, pad_value=(1, 2, 3))
    assert (spec.prepare(image) == 1).all()
    wide = ImageSpec(6, 6, ResizeMode.CENTER_CROP, std=(1, 1, 1), pad_value=(1, 2, 3), short_side=4)
    tensor = wide.prepare(image)
    assert tensor[:, 0, 0].tolist() == tensor[:, 5, 5].tolist() == [1, 2, 3]
    assert tensor[:, 2, 2].tolist() == [255, 255, 255]
    assert tensor[:, 2, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings_", "part"),
    [
        ({"pad_value": 256}, "padding"),
        ({"pad_value": (0, -1, 0)}, "padding"),
        ({"short_side": 256}, "letterbox"),
        ({"short_side": 0, "resize": ResizeMode.CENTER_CROP}, "1 to"),
        ({"short_side": MAX_SIDE + 1, "resize": ResizeMode.CENTER_CROP}, "1 to"),
        ({"std": (1.0, 0.0, 1.0)}, "normalise"),
        ({"std": (1.0, 1.0, math.inf)}, "normalise"),
        ({"mean": (math.nan, 0.0, 0.0)}, "normalise"),
        ({"height": 0}, "0x8"),
        ({"width": 0}, "8x0"),
        ({"height": 16_385}, "16385x8, expected sides from 1 to 16384 pixels"),
        ({"width": 16_385}, "8x16385, expected sides from 1 to 16384 pixels"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(settings_, part) -> None:
    with pytest.raises(ValueError, match=part):
        ImageSpec(**{"height": 8, "width": 8} | settings_)


def test_the_largest_and_smallest_numbers_that_mean_something_are_taken() -> None:
    crop = {"resize": ResizeMode.CENTER_CROP}
    for side in (1, MAX_SIDE):
        assert ImageSpec(side, side, short_side=side, **crop).short_side == side
    corner = {"resize": ResizeMode.PAD_BOTTOM_RIGHT, "pad_value": (0, 1, 255)}
    negative = ImageSpec(2, 2, std=(-1.0, -1.0, -1.0), **corner)
    tensor = negative.prepare(np.full((2, 1, 3), 5, np.uint8))
    assert tensor[:, 0].tolist() == [[-5, 0], [-5, -1], [-5, -255]]


def test_a_picture_too_narrow_to_be_cropped_is_refused_before_memory_is_taken() -> None:
    spec = ImageSpec(224, 224, ResizeMode.CENTER_CROP)
    with support.refuses(InputError, "1x16000", "too narrow", "224x224"):
        spec.prepare(np.zeros((1, 16000, 3), np.uint8))


@pytest.mark.parametrize("side", [16_384, 16_385])
def test_no_side_of_what_is_cropped_becomes_longer_than_65536_pixels(side) -> None:
    spec = ImageSpec(8, 6, ResizeMode.CENTER_CROP, short_side=4)
    for width, height in ((side, 1), (1, side)):
        if side == 16_384:
            assert max(vars(spec.place(width, height)).values()) == 65_536
            continue
        with support.refuses(InputError, f"{height}x{width} pixels", "8x6"):
            spec.place(width, height)


def test_a_crop_without_a_short_side_has_the_tensors_own() -> None:
    for height, width in ((4, 6), (6, 4)):
        placed = ImageSpec(height, width, ResizeMode.CENTER_CROP).place(100, 200)
        assert (placed.resized_width, placed.resized_height) == (4, 8)


@pytest.mark.parametrize(
    ("tensor", "size"), [((32, 48), (20, 20)), ((48, 32), (20, 20)), ((32, 48), (3, 48))]
)
def test_all_that_a_picture_leaves_free_is_padded(tensor, size) -> None:
    spec = ImageSpec(*tensor, ResizeMode.PAD_BOTTOM_RIGHT)
    found = spec.prepare(picture(*size), np.full((3, *tensor), np.nan, np.float32))
    assert_close(found, spec, by_numpy(spec, picture(*size)))


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0, 0, 0), (50, 60, 70)), ((1, 2, 3), (50, 50, 50)), ((1, 1, 2), (50, 50, 60))],
)
def test_channels_that_share_one_number_alone_are_not_alike(mean, std) -> None:
    spec = ImageSpec(32, 48, ResizeMode.STRETCH, mean=mean, std=std)
    assert_close(spec.prepare(picture(20, 20)), spec, by_numpy(spec, picture(20, 20)))


def test_the_nearest_pixels_of_a_tensor_lie_from_0_to_255() -> None:
    spec = ImageSpec(1, 3, mean=(10, 20, 30), std=(50, -60, 70))
    pixels = np.array([[[0, 1, 255]], [[7, 254, 255]], [[100, 0, 1]]], np.uint8)
    tensor = spec.normalised(pixels)
    np.testing.assert_array_equal(spec.pixels(tensor), pixels)
    np.testing.assert_array_equal(spec.pixels(tensor + np.float32(0.4 / 70)), pixels)
    assert spec.pixels(np.float32([[[-9, 9]]] * 3))[:, 0].tolist() == [[0, 255], [255, 0], [0, 255]]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("order", list(ColorOrder))
@pytest.mark.parametrize("mode", FITTING)
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


def by_numpy(spec: ImageSpec, image: np.ndarray) -> np.ndarray:
    """The preparation step by step in NumPy, as it once was."""
    placed = spec.place(image.shape[1], image.shape[0])
    size = (placed.resized_width, placed.resized_height)
    if size != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if spec.color_order is ColorOrder.RGB:
        image = image[..., ::-1]
    cut = image[max(0, -placed.top) :, max(0, -placed.left) :][: spec.height, : spec.width]
    canvas = np.empty((spec.height, spec.width, 3), np.uint8)
    canvas[:] = spec.pad_value
    left, top = max(0, placed.left), max(0, placed.top)
    canvas[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    factors = 1 / np.array(spec.std)
    tensor = canvas * factors - np.array(spec.mean) * factors
    return tensor.transpose(2, 0, 1).astype(np.float32)


CHANNELS = st.tuples(*[st.floats(-300, 300)] * 3)
DEVIATIONS = st.tuples(*[st.sampled_from([-58.0, 0.3, 1.0, 57.12, 255.0])] * 3)
SMALL_SPECS = st.builds(
    ImageSpec,
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    resize=st.sampled_from(ResizeMode),
    color_order=st.sampled_from(ColorOrder),
    mean=CHANNELS,
    std=DEVIATIONS,
    pad_value=st.integers(0, 255) | st.tuples(*[st.integers(0, 255)] * 3),
    rounding=st.sampled_from(Rounding),
)
VIEWS = {
    "whole": lambda image: image,
    "flipped": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "other channels first": lambda image: image[..., ::-1],
    "every second": lambda image: image[::2, ::2],
    "cut out": lambda image: image[len(image) // 3 :, image.shape[1] // 4 :],
    "turned": lambda image: image.transpose(1, 0, 2),
    "one colour": lambda image: np.full_like(image, 77),
    "black": lambda image: np.zeros_like(image),
}


def assert_close(found: np.ndarray, spec: ImageSpec, expected: np.ndarray) -> None:
    reach = (255 + np.abs(spec.mean).max()) / np.abs(spec.std).min()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * np.spacing(np.float32(reach)))


@settings(max_examples=150, deadline=None)
@given(SMALL_SPECS, st.integers(1, 150), st.integers(1, 150), st.sampled_from(list(VIEWS)))
def test_every_picture_is_prepared_as_by_numpy(spec, height, width, view) -> None:
    image = VIEWS[view](picture(height, width))
    image.flags.writeable = False
    assert_close(spec.prepare(image), spec, by_numpy(spec, np.ascontiguousarray(image)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3000, 4000)])
def test_tiny_and_huge_pictures_are_prepared_as_by_numpy(size) -> None:
    spec = ImageSpec(320, 256, mean=(120, 110, 100), std=(58, 57, 56))
    image = picture(*size)
    assert_close(spec.prepare(image), spec, by_numpy(spec, image))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 90), st.integers(1, 90), st.booleans()),
        max_size=12,
    )
)
def test_a_scratch_leaves_no_trace_of_earlier_pictures(calls) -> None:
    specs = (
        ImageSpec(32, 48, mean=(1, 2, 3)),
        ImageSpec(48, 32, pad_value=7),
        ImageSpec(32, 48, ResizeMode.STRETCH),
        ImageSpec(32, 48, ResizeMode.PAD_BOTTOM_RIGHT),
    )
    scratch = Scratch()
    buffer = np.full((5, 3, 32, 48), np.nan, np.float32)
    for position, (which, height, width, odd) in enumerate(calls):
        spec, image = specs[which], picture(height, width)
        start = (position % 2) * 3 * 32 * 48 + odd * 480
        rows = buffer.reshape(-1)[start : start + 3 * 32 * 48]
        tensor = rows.reshape(3, spec.height, spec.width)
        spec.prepare(image, tensor, scratch)
        assert_close(tensor, spec, by_numpy(spec, image))


def test_padding_is_written_once_into_each_place_of_a_buffer() -> None:
    spec, scratch = ImageSpec(32, 32), Scratch()
    buffer = np.empty((2, 3, 32, 32), np.float32)
    wide = picture(16, 32)
    for tensor in (buffer[0], buffer[1], buffer[0]):
        spec.prepare(wide, tensor, scratch)
    buffer[:, :, :8] = -1
    spec.prepare(wide, buffer[0], scratch)
    assert (buffer[0, :, :8] == -1).all()
    spec.prepare(picture(32, 16), buffer[0], scratch)
    spec.prepare(wide, buffer[0], scratch)
    assert_close(buffer[0], spec, by_numpy(spec, wide))


def test_another_buffer_at_the_same_place_gets_its_padding() -> None:
    spec, scratch = ImageSpec(32, 32), Scratch()
    memory = bytearray(3 * 32 * 32 * 4)
    for level in (0.0, 5.0):
        buffer = np.frombuffer(memory, np.float32)
        buffer[:] = level
        tensor = buffer.reshape(3, 32, 32)
        spec.prepare(picture(16, 32), tensor, scratch)
        assert_close(tensor, spec, by_numpy(spec, picture(16, 32)))
        del buffer, tensor


def test_a_scratch_does_not_keep_a_buffer_alive() -> None:
    spec, scratch = ImageSpec(32, 32), Scratch()
    buffer = np.empty((1, 3, 32, 32), np.float32)
    gone = weakref.ref(buffer)
    spec.prepare(picture(16, 32), buffer[0], scratch)
    del buffer
    assert gone() is None


def test_tensors_of_another_type_or_order_are_written_too() -> None:
    spec, image = ImageSpec(32, 48), picture(50, 40)
    expected = spec.prepare(image)
    for tensor in (
        np.empty((3, 32, 48), np.float64),
        np.empty((32, 48, 3), np.float32).transpose(2, 0, 1),
        np.empty((3, 32, 96), np.float32)[:, :, ::2],
    ):
        assert spec.prepare(image, tensor) is tensor
        np.testing.assert_array_equal(tensor, expected)


def test_threads_with_their_own_scratch_do_not_disturb_each_other() -> None:
    spec = ImageSpec(64, 96)
    pictures = [picture(40 + 7 * index, 90) for index in range(6)]
    expected = [spec.prepare(image) for image in pictures]

    def prepare_often(index: int) -> bool:
        scratch, tensor = Scratch(), np.empty((3, 64, 96), np.float32)
        order = [(index + step) % 6 for step in range(60)]
        return all(
            np.array_equal(spec.prepare(pictures[one], tensor, scratch), expected[one])
            for one in order
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(prepare_often, range(8)))


@pytest.mark.parametrize("resize", [*ResizeMode])
def test_pixels_are_what_becomes_the_tensor_when_it_is_normalised(resize) -> None:
    spec = ImageSpec(
        48, 64, resize=resize, mean=(1.0, 20.0, 100.0), std=(58.0, -57.0, 1.0), pad_value=(3, 2, 1)
    )
    scratch = Scratch()
    for size in ((40, 90), (90, 40), (48, 64)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        pixels = np.zeros((3, 48, 64), np.uint8)
        assert spec.prepare(image, pixels, scratch) is pixels
        assert np.array_equal(spec.prepare(image, dtype=np.uint8), pixels)
        np.testing.assert_allclose(spec.normalised(pixels), spec.prepare(image), atol=1e-4)


@pytest.mark.parametrize("deviation", [255.0, 128.0, -57.0])
@pytest.mark.parametrize("levels", [(0, 256), (3, 200), (77, 78)])
@pytest.mark.parametrize("size", [(48, 64), (30, 90)])
def test_a_level_becomes_the_same_number_in_every_picture(deviation, levels, size) -> None:
    spec = ImageSpec(48, 64, ResizeMode.LETTERBOX, std=(deviation,) * 3)
    image = np.random.default_rng(1).integers(*levels, (*size, 3), np.uint8)
    image[..., 1] //= 2  # no channel has the range of another
    expected = spec.normalised(spec.prepare(image, dtype=np.uint8))
    np.testing.assert_array_equal(spec.prepare(image), expected)


@pytest.mark.parametrize(
    "corners", [(3.3, 4.7, 20.1, 31.9), (-5, -1e5, 700, 1e5), (70, 50, 80, 60)]
)
@pytest.mark.parametrize("size", [(90, 31), (31, 90)])
def test_one_box_finds_its_way_back_as_one_of_many_does(corners, size) -> None:
    placement = ImageSpec(48, 64).place(*size)
    box = np.array([corners], np.float32)
    many = placement.to_image(np.concatenate([box, box]))
    one = placement.to_image(box)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, many[:1])
