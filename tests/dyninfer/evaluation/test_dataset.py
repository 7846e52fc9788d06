from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Samples, load_samples
from tests.dyninfer.evaluation.coded import coco, write_coded
from tests.support import refuses

CLASSES = ("left", "right")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_coded(tmp_path / "pictures", [10, 20, 30])


def written(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def load(tmp_path: Path, pictures: list[Path], document: object) -> Samples:
    return load_samples(pictures, written(tmp_path, document), CLASSES)


def test_without_annotations_nothing_is_known(pictures: list[Path]) -> None:
    samples = load_samples(pictures, None, CLASSES)
    assert [item.path for item in samples.items] == pictures
    assert samples.truths is None
    assert samples.labels_sha256 is None


def test_pictures_without_objects_have_an_empty_truth(tmp_path: Path, pictures: list[Path]) -> None:
    samples = load(tmp_path, pictures, coco(["000.png", "001.png", "002.png"], [[], [], []]))
    assert samples.truths is not None
    assert [truth.boxes_xyxy.shape for truth in samples.truths] == [(0, 4)] * 3


def test_boxes_become_corners_and_categories_become_classes(
    tmp_path: Path, pictures: list[Path]
) -> None:
    document = coco(["002.png", "000.png"], [[], [[1, 2, 3, 4]]], iscrowd=1, area=5.0)
    samples = load(tmp_path, pictures, document)
    assert [item.path.name for item in samples.items] == ["000.png", "002.png"]
    assert samples.truths is not None
    first = samples.truths[0]
    np.testing.assert_array_equal(first.boxes_xyxy, [[1, 2, 4, 6]])
    assert first.class_ids.tolist() == [1]
    assert first.crowd is not None
    assert first.crowd.tolist() == [True]
    assert first.areas is not None
    assert first.areas.tolist() == [5.0]
    assert samples.warnings == ("left out, without annotations: 1 picture: 001.png",)


def test_annotated_pictures_that_were_not_given_are_told(
    tmp_path: Path, pictures: list[Path]
) -> None:
    samples = load(tmp_path, pictures[:1], coco(["000.png", "009.png"], [[], []]))
    assert samples.warnings == ("not given: 1 of 2 annotated pictures",)


def test_categories_are_matched_by_name_and_synonym(pictures: list[Path], tmp_path: Path) -> None:
    document = coco(["000.png"], [[[0, 0, 1, 1]]], ["tvmonitor", "Sofa"], category=2)
    samples = load_samples(pictures[:1], written(tmp_path, document), ("tv", "couch"))
    assert samples.truths is not None
    assert samples.truths[0].class_ids.tolist() == [1]


def test_objects_of_unknown_categories_are_left_out_with_a_warning(
    tmp_path: Path, pictures: list[Path]
) -> None:
    document = coco(["000.png"], [[[0, 0, 1, 1]]], ["left", "zebra"], category=2)
    samples = load(tmp_path, pictures[:1], document)
    assert samples.truths is not None
    assert len(samples.truths[0].class_ids) == 0
    assert "zebra" in samples.warnings[0]


def test_equal_names_in_several_folders_are_told_apart_by_folder(tmp_path: Path) -> None:
    paths = [*write_coded(tmp_path / "day", [1]), *write_coded(tmp_path / "night", [2])]
    document = coco(["night/000.png", "day/000.png"], [[[0, 0, 1, 1]], []])
    samples = load(tmp_path, paths, document)
    assert samples.truths is not None
    assert [len(truth.class_ids) for truth in samples.truths] == [0, 1]


@pytest.mark.parametrize("place", ["a/val", "b/val", "c/a/val", "c/b/val"])
def test_of_folders_those_nearest_to_the_picture_count(tmp_path: Path, place: str) -> None:
    (path,) = write_coded(tmp_path / "c" / place, [1])
    names = ["b/val/000.png", "a/val/000.png"]
    document = coco(names, [[[0, 0, 1, 1]], []])
    samples = load(tmp_path, [path], document)
    assert samples.truths is not None
    assert len(samples.truths[0].class_ids) == ("b" in place)


def test_a_picture_that_may_be_either_of_two_entries_is_refused(tmp_path: Path) -> None:
    paths = write_coded(tmp_path / "dusk", [1])
    document = coco(["night/000.png", "day/000.png"], [[[0, 0, 1, 1]], []])
    with refuses(InputError, "dusk/000.png", "night/000.png, day/000.png", "folders"):
        load(tmp_path, paths, document)


def test_two_pictures_of_one_entry_are_refused(tmp_path: Path) -> None:
    paths = [*write_coded(tmp_path / "a", [1]), *write_coded(tmp_path / "b", [2])]
    with refuses(InputError, "000.png", "one folder"):
        load(tmp_path, paths, coco(["000.png"], [[]]))


def test_annotations_of_other_pictures_are_refused(tmp_path: Path, pictures: list[Path]) -> None:
    with refuses(InputError, "none of the pictures (3)", "other.jpg", "000.png"):
        load(tmp_path, pictures, coco(["other.jpg"], [[]]))


def test_classes_of_another_detector_are_refused(tmp_path: Path, pictures: list[Path]) -> None:
    with refuses(InputError, "zebra", "left", "--class-names"):
        load(tmp_path, pictures, coco(["000.png"], [[]], ["zebra"]))


def test_an_object_of_a_category_that_is_not_listed_is_refused(
    tmp_path: Path, pictures: list[Path]
) -> None:
    with refuses(InputError, "category 7"):
        load(tmp_path, pictures, coco(["000.png"], [[[0, 0, 1, 1]]], category=7))


@pytest.mark.parametrize("box", [[0, 0, -1, 1], [0, 0, 1], ["a", 0, 1, 1], [float("nan"), 0, 1, 1]])
def test_a_box_that_is_none_is_refused(
    tmp_path: Path, pictures: list[Path], box: list[float]
) -> None:
    with refuses(InputError, "annotations.0.bbox", "x, y, width, height"):
        load(tmp_path, pictures, coco(["000.png"], [[box]]))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"images": [], "categories": []}'])
def test_what_is_no_coco_file_is_refused(
    tmp_path: Path, pictures: list[Path], content: str
) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with refuses(InputError, str(path), "COCO"):
        load_samples(pictures, path, CLASSES)


@pytest.mark.parametrize("empty", ["images", "categories"])
def test_labels_of_no_picture_or_no_class_are_refused(
    tmp_path: Path, pictures: list[Path], empty: str
) -> None:
    document = coco(["000.png"], [[]]) | {empty: []}
    with refuses(InputError, f"not in COCO's format: {empty}: ", "at least 1 item"):
        load(tmp_path, pictures, document)


def test_missing_annotations_are_told(tmp_path: Path, pictures: list[Path]) -> None:
    with refuses(InputError, "nowhere.json", "cannot be read"):
        load_samples(pictures, tmp_path / "nowhere.json", CLASSES)


def test_the_hash_of_a_set_ignores_order_and_names(tmp_path: Path, pictures: list[Path]) -> None:
    here = load_samples(pictures, None, CLASSES).sha256()
    moved = [path.rename(tmp_path / f"moved-{path.name}") for path in reversed(pictures)]
    assert load_samples(moved, None, CLASSES).sha256() == here
    assert load_samples(moved[:2], None, CLASSES).sha256() != here


@pytest.mark.parametrize("key", ["images", "categories"])
def test_an_id_that_is_used_twice_is_refused(
    tmp_path: Path, pictures: list[Path], key: str
) -> None:
    document = coco(["000.png", "001.png"], [[], []])
    document[key][1]["id"] = document[key][0]["id"]
    others = [document[key][0] | {"id": id_} for id_ in (-1, 77)]
    document[key] += others
    with refuses(InputError, "labels.json", "2 times"):
        load(tmp_path, pictures, document)


@pytest.mark.parametrize("document", [[], 3, [{"image_id": 1, "score": 0.5}]])
def test_what_is_no_object_is_named(tmp_path: Path, pictures: list[Path], document: object) -> None:
    with refuses(InputError, f"holds a JSON {type(document).__name__}", "images, categories"):
        load(tmp_path, pictures, document)


def test_boxes_as_shares_of_the_picture_are_refused(tmp_path: Path, pictures: list[Path]) -> None:
    document = coco(["000.png", "001.png"], [[[0.1, 0.2, 0.5, 0.5]], [[0, 0, 1, 1]]])
    with refuses(InputError, "every box of", "in pixels"):
        load(tmp_path, pictures, document)


def test_boxes_beyond_their_picture_are_told(tmp_path: Path, pictures: list[Path]) -> None:
    document = coco(["000.png", "001.png"], [[[1, 1, 9, 9]], [[4, 4, 7, 7], [0, 0, 8, 8]]])
    for image in document["images"]:
        image.update(width=8, height=8)
    (found, _) = load(tmp_path, pictures, document).warnings[::-1]
    assert found.startswith("beyond the edge of their pictures: 1 of 3 boxes, the first in 001.png")


def test_objects_of_pictures_that_are_not_listed_are_told(
    tmp_path: Path, pictures: list[Path]
) -> None:
    document = coco(["000.png", "001.png", "002.png"], [[], [], [[0, 0, 2, 2]]])
    document["annotations"][0]["image_id"] = 77
    samples = load(tmp_path, pictures, document)
    assert samples.warnings == ("of pictures that the annotations do not list: 1 object",)


def test_only_objects_of_the_given_pictures_count_as_left_out(
    tmp_path: Path, pictures: list[Path]
) -> None:
    document = coco(["000.png", "x.png"], [[[0, 0, 2, 2]], [[0, 0, 2, 2]] * 5], ("left", "cat"))
    (warning, *_) = load(tmp_path, pictures[:1], document).warnings
    assert warning.endswith("does not know: 1 object, of cat")


@pytest.mark.parametrize(
    ("box", "beyond"),
    [
        ([1, 1, 11, 7], False),  # two pixels more than 10x6 are rounding
        ([1, 1, 11.5, 7], True),
        ([1, 1, 11, 7.5], True),
        ([1, 1, 12, 2], True),
        ([1, 1, 2, 8], True),
        ([7, 1, 1, 6.9], False),
    ],
)
def test_a_box_may_be_beyond_either_edge_by_two_pixels(
    tmp_path: Path, pictures: list[Path], box: list[float], beyond: bool
) -> None:
    document = coco(["000.png"], [[box]])
    for size, told in (({"width": 10, "height": 6}, beyond), ({"width": 10}, False), ({}, False)):
        document["images"][0] = {"id": document["images"][0]["id"], "file_name": "000.png"} | size
        warnings = load(tmp_path, pictures[:1], document).warnings
        assert [line[:15] for line in warnings] == ["beyond the edge"] * told


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        ([0.25, 0.25, 0.75, 0.5], False),
        ([0.25, 0.25, 0.5, 0.75], False),
        ([0.25, 0.25, 0.75, 0.75], True),  # ends on whole pixels
        ([0.25, 0.25, 0.8, 0.5], True),
        ([0.25, 0.25, 0.5, 0.8], True),
        ([0, 0, 1, 1], True),
    ],
)
def test_shares_are_boxes_of_which_all_end_within_a_pixel(
    tmp_path: Path, pictures: list[Path], box: list[float], fits: bool
) -> None:
    document = coco(["000.png"], [[box]])
    if fits:
        assert load(tmp_path, pictures[:1], document).truths is not None
    else:
        with refuses(InputError, "lies within one pixel"):
            load(tmp_path, pictures[:1], document)


def test_an_area_that_is_not_said_is_that_of_the_box(tmp_path: Path, pictures: list[Path]) -> None:
    document = coco(["000.png"], [[[1, 2, 3, 4], [0, 0, 2, 5]]])
    document["annotations"][0].pop("area", None)
    document["annotations"][1] |= {"area": 0.0, "iscrowd": 1}
    samples = load(tmp_path, pictures[:1], document)
    assert samples.truths is not None
    assert samples.truths[0].areas is not None
    assert samples.truths[0].areas.tolist() == [12, 0]
    assert samples.truths[0].crowds.tolist() == [False, True]


@pytest.mark.parametrize("id_", [True, 1.5, None, [1]])
def test_an_id_is_a_whole_number_or_a_text(tmp_path: Path, pictures: list[Path], id_) -> None:
    document = coco(["000.png"], [[]])
    document["images"][0]["id"] = id_
    with refuses(InputError, "images.0.id"):
        load(tmp_path, pictures[:1], document)
