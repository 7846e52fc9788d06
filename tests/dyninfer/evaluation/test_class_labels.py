from __future__ import annotations

import json
from pathlib import Path

import pytest

from dyninfer.bundle.manifest import Task
from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.scoring import SCORING
from tests.dyninfer.evaluation.coded import coco, write_coded
from tests.support import COLOURS, refuses


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_coded(tmp_path / "pictures", [10, 20, 30])


def load(pictures: list[Path], labels: Path | None = None) -> Samples:
    return load_samples(pictures, labels, COLOURS, Task.CLASSIFY)


def class_ids(samples: Samples) -> list[int | None]:
    return [item.class_id for item in samples.items]


def test_a_folder_for_each_class_needs_no_annotations(tmp_path: Path) -> None:
    paths = [*write_coded(tmp_path / "blue", [1]), *write_coded(tmp_path / "RED", [2])]
    samples = load(paths)
    assert class_ids(samples) == [2, 0]
    assert samples.warnings == ()
    assert samples.labels_sha256 == load(paths[::-1]).labels_sha256
    moved = paths[0].rename(tmp_path / "RED" / "moved.png")
    assert load([moved, paths[1]]).labels_sha256 != samples.labels_sha256


def test_other_folders_say_nothing_and_are_told_where_labels_are_needed(
    tmp_path: Path, pictures: list[Path]
) -> None:
    samples = load(pictures)
    assert (class_ids(samples), samples.warnings) == ([None] * 3, ())
    with refuses(InputError, "folder is called pictures (3 pictures)", "--annotations", "green"):
        SCORING[Task.CLASSIFY].check(samples, COLOURS)
    mixed = load([*write_coded(tmp_path / "gren", [1]), *write_coded(tmp_path / "red", [2])])
    assert class_ids(mixed) == [None, None]
    (warning,) = mixed.warnings
    assert "gren" in warning
    with refuses(InputError, "gren", "the nearest class is green"):
        SCORING[Task.CLASSIFY].check(mixed, COLOURS)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def mapping(tmp_path: Path, **classes: str) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({f"{name}.png": class_ for name, class_ in classes.items()}))
    return path


@pytest.mark.parametrize("titles", ["", "image,label\n"])
def test_a_table_of_file_names_and_classes(
    tmp_path: Path, pictures: list[Path], titles: str
) -> None:
    path = table(tmp_path, f"{titles}pictures/002.png,red\n000.png, Blue\n\nother.png,puce\n")
    samples = load(pictures, path)
    assert [item.path.name for item in samples.items] == ["000.png", "002.png"]
    assert class_ids(samples) == [2, 0]
    assert samples.warnings == (
        "left out, without annotations: 1 picture: 001.png",
        "not given: 1 of 3 annotated pictures",
    )


def test_a_json_object_and_coco_s_format_say_the_same(tmp_path: Path, pictures: list[Path]) -> None:
    plain = load(pictures, mapping(tmp_path, **{"000": "red", "001": "blue", "002": "red"}))
    document = coco(["000.png", "001.png", "002.png"], [[], [], []], COLOURS)
    document["annotations"] = [
        {"id": n, "image_id": n, "category_id": category} for n, category in enumerate((1, 3, 1))
    ]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    assert class_ids(plain) == class_ids(load(pictures, path)) == [0, 2, 0]
    document["annotations"].pop()
    path.write_text(json.dumps(document))
    fewer = load(pictures, path)
    assert class_ids(fewer) == [0, 2]
    assert fewer.warnings == ("left out, without a class: 1 picture: 002.png",)


@pytest.mark.parametrize(
    ("first", "second", "told"), [(2, 1, "green and red"), (1, 2, "red and green")]
)
def test_annotations_of_objects_are_no_classes(
    tmp_path: Path, pictures: list[Path], first: int, second: int, told: str
) -> None:
    names = ["000.png", "001.png", "002.png"]
    document = coco(names, [[[0, 0, 1, 1]], [], []], COLOURS, category=first)
    document["annotations"].append({"image_id": 0, "category_id": second})
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document))
    with refuses(InputError, "000.png", told, "expected one"):
        load(pictures, path)


@pytest.mark.parametrize("name", ["labels", "labels.coco", "labels.txt"])
def test_only_a_csv_is_read_as_a_table(tmp_path: Path, pictures: list[Path], name: str) -> None:
    path = mapping(tmp_path, **{"000": "red", "001": "blue"}).rename(tmp_path / name)
    assert class_ids(load(pictures, path)) == [0, 2]


def test_an_unknown_class_is_told_with_the_nearest(tmp_path: Path, pictures: list[Path]) -> None:
    with refuses(InputError, "labels.csv", "gren (2 pictures, and 1 more name)", "is green"):
        load(pictures, table(tmp_path, "000.png,gren\n001.png,gren\n002.png,puce\n"))
    with refuses(InputError, "labels.json", "zebra", "expected red, green, blue"):
        load(pictures, mapping(tmp_path, **{"000": "zebra"}))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.csv", "", ("expected", "file name")),
        ("a.csv", "000.png\n", ("1 column ", "two")),
        ("a.csv", "other.png,red\n", ("none of the pictures (3)",)),
        ("a.csv", b"\xff\xfe\xff", ("not CSV",)),
        ("a.json", "{}", ("COCO", "CSV")),
        ("a.json", "[]", ("JSON list",)),
        ("none.csv", None, ("cannot be read",)),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, pictures: list[Path], name: str, text: str | bytes | None, parts: tuple[str]
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refuses(InputError, name, *parts):
        load(pictures, path)


def test_of_a_long_line_80_characters_are_told(tmp_path: Path, pictures: list[Path]) -> None:
    table = tmp_path / "classes.csv"
    table.write_text(f"000.png,red\n000.png,red,{'x' * 90}\n000.png\n")
    with refuses(InputError, f"a line of 3 columns (000.png,red,{'x' * 68}), expected two"):
        load(pictures, table)
