"""Labels as other people's tools write them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dyninfer.errors import InputError
from dyninfer.evaluation import coco_labels, voc_labels, yolo_labels
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.files import read_file
from tests.support import refuses

CLASSES = ("cat", "dog", "NO")
WIDTH, HEIGHT = 60, 40


def write_pictures(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return list(paths)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def found(samples: Samples) -> dict[str, list[tuple[int, list[float]]]]:
    """Of every picture by its name: class and box of each object."""
    assert samples.truths is not None
    return {
        item.path.name: list(
            zip(truth.class_ids.tolist(), truth.boxes_xyxy.round(3).tolist(), strict=True)
        )
        for item, truth in zip(samples.items, samples.truths, strict=True)
    }


def coco(tmp_path: Path, images: list[dict], annotations: list[dict], ids=(1, 2)) -> Path:
    categories = [{"id": id_, "name": name} for id_, name in zip(ids, CLASSES, strict=False)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return write(tmp_path / "labels.json", json.dumps(document))


# COCO


def test_ids_may_be_texts_or_numbers(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png", tmp_path / "b.png")
    images = [{"id": "7", "file_name": "a.png"}, {"id": "x-1", "file_name": "b.png"}]
    annotations = [
        {"image_id": 7, "category_id": "2", "bbox": [1, 2, 3, 4]},
        {"image_id": 7.0, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {"image_id": "x-1", "category_id": 2, "bbox": [1, 1, 1, 1]},
    ]
    samples = load_samples(pictures, coco(tmp_path, images, annotations, ids=(1, "2")), CLASSES)
    assert found(samples) == {
        "a.png": [(1, [1, 2, 4, 6]), (0, [0, 0, 5, 5])],
        "b.png": [(1, [1, 1, 2, 2])],
    }


@pytest.mark.parametrize("name", ["labels", "labels.coco", "labels.zzz"])
def test_whatever_has_no_other_suffix_is_read_as_json(tmp_path: Path, name: str) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    path = coco(tmp_path, [{"id": 1, "file_name": "a.png"}], []).rename(tmp_path / name)
    assert found(load_samples(pictures, path, CLASSES)) == {"a.png": []}


@pytest.mark.parametrize("ids", [(1, 2), (2, 1)])
def test_one_file_with_two_ids_has_the_objects_of_both(tmp_path: Path, ids) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    images = [{"id": n, "file_name": "a.png", "width": 60, "height": 40} for n in ids]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 2, "category_id": 2, "bbox": [5, 5, 5, 5]},
    ]
    samples = load_samples(pictures, coco(tmp_path, images, annotations), CLASSES)
    assert found(samples) == {"a.png": [(0, [1, 2, 4, 6]), (1, [5, 5, 10, 10])]}
    (warning,) = samples.warnings
    assert "listed again with another id: 1 picture" in warning
    images[1] |= {"width": 40}
    with refuses(InputError, "a.png", f"ids {ids[0]} and {ids[1]}", "60x40 and 40x40"):
        load_samples(pictures, coco(tmp_path, images, annotations), CLASSES)


def test_an_entry_that_is_written_twice_counts_once(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png"}] * 2
    labels = coco(tmp_path, images, [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}])
    assert found(load_samples(pictures, labels, CLASSES)) == {"a.png": [(0, [1, 2, 4, 6])]}


@pytest.mark.parametrize(
    ("listed", "picture"),
    [
        ("val/a.png", "a.png"),
        ("a.png", "val/a.png"),
        ("C:\\sets\\val\\a.png", "val/a.png"),
        ("A.PNG", "a.png"),
        ("a", "a.png"),
        ("val/A", "a.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
    ],
)
def test_names_with_and_without_folders_suffixes_and_case_are_the_same(
    tmp_path: Path, listed: str, picture: str
) -> None:
    pictures = write_pictures(tmp_path / picture)
    labels = coco(tmp_path, [{"id": 1, "file_name": listed}], [])
    assert list(found(load_samples(pictures, labels, CLASSES)).values()) == [[]]


def test_a_name_without_folders_comes_before_one_with_others(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "mine" / "a.png")
    images = [{"id": 1, "file_name": "val/a.png"}, {"id": 2, "file_name": "a.png"}]
    annotations = [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    samples = load_samples(pictures, coco(tmp_path, images, annotations), CLASSES)
    assert found(samples) == {"a.png": [(0, [1, 2, 4, 6])]}


def test_names_that_differ_in_their_suffix_are_of_different_pictures(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png", tmp_path / "a.bmp")
    images = [{"id": 1, "file_name": "a.bmp"}, {"id": 2, "file_name": "a.png"}]
    annotations = [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    samples = load_samples(pictures, coco(tmp_path, images, annotations), CLASSES)
    assert found(samples) == {"a.png": [(0, [1, 2, 4, 6])], "a.bmp": []}
    with refuses(InputError, "lists none", "a.tif"):
        load_samples(write_pictures(tmp_path / "a.tif"), tmp_path / "labels.json", CLASSES)


def test_one_entry_without_a_suffix_is_not_given_to_two_pictures(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png", tmp_path / "a.bmp")
    with refuses(InputError, "a.png", "a.bmp", "are both a of"):
        load_samples(pictures, coco(tmp_path, [{"id": 1, "file_name": "a"}], []), CLASSES)


# VOC

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax>
</bndbox></object>"""


def voc(path: Path, *objects: str, file_name: str = "elsewhere.jpg") -> Path:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    text = f"<annotation><filename>{file_name}</filename>{size}{''.join(objects)}</annotation>"
    return write(path, text)


def test_a_folder_of_voc_labels(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "jpg" / "a.png", tmp_path / "jpg" / "b.png")
    cat = OBJECT.format(name="cat", difficult=0, box=(1, 2, 11, 22))
    dog = OBJECT.format(name=" Dog ", difficult=1, box=(0.5, 0, 60, 40))
    voc(tmp_path / "xml" / "a.xml", cat, dog)
    voc(tmp_path / "xml" / "b.xml")
    voc(tmp_path / "xml" / "c.xml", cat)
    samples = load_samples(pictures, tmp_path / "xml", CLASSES)
    assert found(samples) == {"a.png": [(0, [1, 2, 11, 22]), (1, [0.5, 0, 60, 40])], "b.png": []}
    assert samples.items[0].size == (WIDTH, HEIGHT)
    assert samples.truths is not None
    assert samples.truths[0].crowds.tolist() == [
        False,
        True,
    ]  # what is difficult counts neither way
    assert samples.warnings == ()
    changed = samples.labels_sha256
    voc(tmp_path / "xml" / "b.xml", cat)
    assert load_samples(pictures, tmp_path / "xml", CLASSES).labels_sha256 != changed


def test_one_voc_file_is_known_by_what_it_calls_its_picture(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    cat = OBJECT.format(name="cat", difficult=0, box=(1, 2, 11, 22))
    path = voc(tmp_path / "label.xml", cat, file_name="a.png")
    assert found(load_samples(pictures, path, CLASSES)) == {"a.png": [(0, [1, 2, 11, 22])]}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>', "document type"),
        ("<annotation>", "not readable XML"),
        ("", "not readable XML"),
        ("<annotation>" + "<a>" * 2000, "deep"),
        ("<html></html>", "'html'"),
        (f"<annotation>{OBJECT.format(name='cat', difficult=0, box='abcd')}</annotation>", "'a'"),
        ("<annotation><object><name>cat</name></object></annotation>", "xmin"),
        (
            f"<annotation>{OBJECT.format(name='cat', difficult=0, box=(9, 9, 2, 2))}</annotation>",
            "",
        ),
        (
            f"<annotation>{OBJECT.format(name='cat', difficult=0, box=('nan',) * 4)}</annotation>",
            "",
        ),
    ],
)
def test_voc_files_that_are_none_are_refused(tmp_path: Path, text: str, part: str) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    with refuses(InputError, "a.xml" if part else "xml", part):
        load_samples(pictures, write(tmp_path / "xml" / "a.xml", text).parent, CLASSES)


def test_a_long_flat_voc_label_is_no_deep_one(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    cat = OBJECT.format(name="cat", difficult=0, box=(1, 2, 11, 22))
    voc(tmp_path / "xml" / "a.xml", *[cat] * 100)
    assert found(load_samples(pictures, tmp_path / "xml", CLASSES)) == {
        "a.png": [(0, [1, 2, 11, 22])] * 100
    }


@pytest.mark.parametrize(("levels", "fits"), [(63, True), (64, False)])
def test_parts_of_a_voc_label_lie_in_64_levels_at_most(tmp_path: Path, levels, fits) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    cat = OBJECT.format(name="cat", difficult=0, box=(1, 2, 11, 22))
    voc(tmp_path / "xml" / "a.xml", cat, "<part>" * levels + "</part>" * levels)
    if fits:
        assert len(found(load_samples(pictures, tmp_path / "xml", CLASSES))["a.png"]) == 1
    else:
        with refuses(InputError, "nested more than 64 deep"):
            load_samples(pictures, tmp_path / "xml", CLASSES)


def test_a_voc_label_may_leave_out_what_need_not_be_said(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png", tmp_path / "b.png")
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    item = f"<object><name>dog</name><difficult> </difficult><bndbox>{box}</bndbox></object>"
    write(tmp_path / "xml" / "a.xml", f"<annotation>{item}</annotation>")
    size = "<size><width>60</width><height></height></size>"
    write(tmp_path / "xml" / "b.xml", f"<annotation>{size}{item}</annotation>")
    samples = load_samples(pictures, tmp_path / "xml", CLASSES)
    assert [item.size for item in samples.items] == [None, None]
    assert samples.truths is not None
    assert [truth.crowds.tolist() for truth in samples.truths] == [[False], [False]]


# YOLO


def yolo_set(tmp_path: Path) -> list[Path]:
    """Pictures and labels as Ultralytics lays them out."""
    write(
        tmp_path / "set" / "labels" / "val" / "a.txt", "1 0.5 0.5 0.5 0.25\n\n0 0.1 0.1 0.2 0.2 0.9"
    )
    write(tmp_path / "set" / "labels" / "val" / "b.txt", "2 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n")
    folder = tmp_path / "set" / "images" / "val"
    return write_pictures(folder / "a.png", folder / "b.png", folder / "c.png")


YOLO_OBJECTS = {
    "a.png": [(1, [15, 15, 45, 25]), (0, [0, 0, 12, 8])],
    "b.png": [(2, [6, 8, 30, 24])],
    "c.png": [],
}


@pytest.mark.parametrize("place", ["set/labels/val", "set/labels", "set"])
def test_a_folder_of_yolo_labels_without_names_has_the_detectors_classes(
    tmp_path: Path, place: str
) -> None:
    samples = load_samples(yolo_set(tmp_path), tmp_path / place, CLASSES)
    assert found(samples) == YOLO_OBJECTS
    names, empty = samples.warnings
    assert "(a data set's YAML, or classes.txt); its numbers are taken as the detector" in names
    assert "without a label file, taken as empty: 1 picture: c.png" in empty


@pytest.mark.parametrize(
    "names",
    [
        "names: [dog, cat, NO]",
        "names:\n  - dog\n  - cat\n  - NO\n",
        "path: .\nval: {a: [b]}\nnames:\n  1: cat\n  0: dog\n  2: NO\nnc: 3",
    ],
)
@pytest.mark.parametrize("place", ["set/data.yaml", "set/labels/val"])
def test_names_come_from_the_data_sets_yaml_as_texts(
    tmp_path: Path, names: str, place: str
) -> None:
    pictures = yolo_set(tmp_path)
    write(tmp_path / "set" / "data.yaml", names)
    for name, text in (("another", "{broken"), ("bare", "nc: 3"), ("list", "[names]")):
        write(tmp_path / "set" / f"{name}.yml", text)
        write(tmp_path / "set" / f"{name}.yaml", text)
    samples = load_samples(pictures, tmp_path / place, CLASSES)
    assert found(samples)["a.png"] == [(0, [15, 15, 45, 25]), (1, [0, 0, 12, 8])]
    assert found(samples)["b.png"] == [(2, [6, 8, 30, 24])]
    assert len(samples.warnings) == 1


def test_pictures_without_a_label_file_are_taken_as_empty(tmp_path: Path) -> None:
    pictures = yolo_set(tmp_path)
    pictures += write_pictures(*(pictures[0].with_name(f"{name}.png") for name in "de"))
    samples = load_samples(pictures, tmp_path / "set", CLASSES)
    assert found(samples) == YOLO_OBJECTS | {"d.png": [], "e.png": []}
    assert samples.warnings[-1].endswith("taken as empty: 3 pictures: c.png, d.png, e.png")


def test_labels_after_an_empty_one_and_after_an_unreadable_picture_are_read(tmp_path: Path) -> None:
    pictures = write_pictures(*(tmp_path / f"{name}.png" for name in "abcd"))
    for name, text in (("a", "\n"), ("b", "1 0.5 0.5 0.5 0.5"), ("c", ""), ("d", "1 0.5 0.5 1 1")):
        write(tmp_path / "labels" / f"{name}.txt", text)
    pictures[1].write_bytes(b"no picture")
    samples = load_samples(pictures, tmp_path / "labels", CLASSES)
    assert found(samples) == {"a.png": [], "b.png": [], "c.png": [], "d.png": [(1, [0, 0, 60, 40])]}


def test_where_no_header_says_the_size_the_picture_is_decoded(tmp_path: Path, monkeypatch) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 1 1")
    monkeypatch.setattr(yolo_labels, "picture_size", lambda _: None)
    samples = load_samples(pictures, tmp_path / "labels", CLASSES)
    assert found(samples) == {"a.png": [(1, [0, 0, 60, 40])]}


def test_names_come_from_a_text_beside_the_labels(tmp_path: Path) -> None:
    pictures = yolo_set(tmp_path)
    write(tmp_path / "set" / "labels" / "classes.txt", "dog\ncat\nNO\n")
    samples = load_samples(pictures, tmp_path / "set" / "labels", CLASSES)
    assert found(samples)["b.png"] == [(2, [6, 8, 30, 24])]
    assert found(samples)["a.png"][0][0] == 0


def test_pictures_of_one_name_in_two_folders_have_the_labels_of_theirs(tmp_path: Path) -> None:
    for split, box in (("train", "0.5 0.5 1 1"), ("val", "0.5 0.5 0.5 0.5")):
        write(tmp_path / "labels" / split / "a.txt", f"0 {box}")
    pictures = write_pictures(tmp_path / "images" / "train" / "a.png")
    path = tmp_path / "images" / "val" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.zeros((80, 80, 3), np.uint8))
    for given in ([path, *pictures], [*pictures, path]):
        samples = load_samples(given, tmp_path / "labels", CLASSES)
        assert samples.truths is not None
        boxes = {
            item.path.parent.name: truth.boxes_xyxy.tolist()
            for item, truth in zip(samples.items, samples.truths, strict=True)
        }
        assert boxes == {"val": [[20, 20, 60, 60]], "train": [[0, 0, 60, 40]]}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("3 0.5 0.5 0.1 0.1", "class 3"),
        ("4 0.5 0.5 0.1 0.1", "is of class 4, and there are 3 names"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0 30 20 10 10", "from 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "from 0 to 1"),
        ("0 0.5 0.5", "3 columns"),
        ("cat 0.5 0.5 0.1 0.1", "not a number"),
    ],
)
def test_yolo_lines_that_are_none_are_named(tmp_path: Path, line: str, part: str) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    path = write(tmp_path / "labels" / "a.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with refuses(InputError, "a.txt, line 2", part):
        load_samples(pictures, path.parent, CLASSES)


def test_a_folder_without_labels_says_what_was_expected(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with refuses(InputError, "NAME.xml (VOC)", "NAME.txt (YOLO)", "nothing"):
        load_samples(pictures, tmp_path / "empty", CLASSES)
    coco(tmp_path / "empty", [{"id": 1, "file_name": "a.png"}], [])
    assert found(load_samples(pictures, tmp_path / "empty", CLASSES)) == {"a.png": []}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5 0.5 1.0009 1", (0, [-0.027, 0, 60.027, 40])),  # as rounding leaves it
        ("0 0.5 0.5 1.002 1", None),
        ("0 -0.0009 0.5 0.1 0.1", (0, [-3.054, 18, 2.946, 22])),
        ("0 -0.002 0.5 0.1 0.1", None),
        ("0 -0.001 0.5 0.1 0.1", (0, [-3.06, 18, 2.94, 22])),
        ("0 0.5 0.5 1.001 1", (0, [-0.03, 0, 60.03, 40])),
        ("1 0.1 0.2 0.5 0.2 0.3 0.6", (1, [6, 8, 30, 24])),  # an outline of three corners
        ("1 0.5 0.1 0.75 0.3 0.6 0.2", (1, [30, 4, 45, 12])),  # nearer to the top than to the left
        ("1 0.1 0.2 0.5 0.2 0.3 0.6 0.4", None),
    ],
)
def test_shares_and_outlines_of_yolo_lines(tmp_path: Path, line: str, expected) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    path = write(tmp_path / "labels" / "a.txt", line)
    if expected is None:
        with refuses(InputError, "a.txt, line 1"):
            load_samples(pictures, path.parent, CLASSES)
    else:
        assert found(load_samples(pictures, path.parent, CLASSES)) == {"a.png": [expected]}


def test_shares_are_of_the_picture_as_it_is_shown(tmp_path: Path) -> None:
    from PIL import Image

    turned = Image.new("RGB", (WIDTH, HEIGHT)).getexif()
    turned[0x0112] = 6  # by a quarter to the right
    for name, exif in (("a.jpg", turned), ("b.jpg", None)):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name, **({"exif": exif} if exif else {}))
        write(tmp_path / "labels" / f"{name[0]}.txt", "0 0.5 0.5 0.5 0.25")
    samples = load_samples([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "labels", CLASSES)
    assert found(samples) == {
        "a.jpg": [(0, [10, 22.5, 30, 37.5])],
        "b.jpg": [(0, [15, 15, 45, 25])],
    }
    assert [item.size for item in samples.items] == [(HEIGHT, WIDTH), (WIDTH, HEIGHT)]
    data = (tmp_path / "a.jpg").read_bytes()
    comment = b"\xff\xfe" + (50_002).to_bytes(2, "big") + bytes(50_000)
    (tmp_path / "a.jpg").write_bytes(data[:2] + comment + data[2:])
    samples = load_samples([tmp_path / "a.jpg"], tmp_path / "labels", CLASSES)
    assert samples.items[0].size == (HEIGHT, WIDTH)


def test_names_are_looked_for_no_further_than_two_folders_up(tmp_path: Path) -> None:
    pictures = yolo_set(tmp_path)
    write(tmp_path / "data.yaml", "names: [dog, cat, NO]")  # three above set/labels/val
    samples = load_samples(pictures, tmp_path / "set" / "labels" / "val", CLASSES)
    assert found(samples) == YOLO_OBJECTS
    named = load_samples(pictures, tmp_path / "set" / "labels", CLASSES)
    assert found(named)["a.png"][0] == (0, [15, 15, 45, 25])


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [
        (((60, 40), (60, 40)), False),
        (((60, 40), (40, 40)), True),
        (((40, 40), (60, 40)), True),
        (((60, 30), (60, 40)), True),
        (((60, None), (40, 40)), False),
        (((None, None), (40, 40)), False),
        (((60, 40), (None, 40)), False),
    ],
)
def test_entries_of_one_file_may_not_differ_in_size(tmp_path: Path, sizes, refused) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    images = [
        {"id": number, "file_name": "a.png", "width": width, "height": height}
        for number, (width, height) in enumerate(sizes)
    ]
    labels = coco(tmp_path, images, [])
    if refused:
        with refuses(InputError, "ids 0 and 1 and two sizes"):
            load_samples(pictures, labels, CLASSES)
    else:
        (told,) = load_samples(pictures, labels, CLASSES).warnings
        again = "listed again with another id: 1 picture; the objects are merged"
        assert told == again


def test_duplicates_that_are_removed_are_counted(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    images = [{"id": n, "file_name": "a.png"} for n in (1, 2, 3)]
    annotations = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in (1, 2, 3)]
    (told,) = load_samples(pictures, coco(tmp_path, images, annotations), CLASSES).warnings
    assert told.endswith("2 pictures; the objects are merged (2 duplicates removed)")


def test_of_two_json_files_in_a_folder_none_is_read(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    folder = tmp_path / "both"
    for name in ("one.json", "two.json"):
        write(folder / name, coco(tmp_path, [{"id": 1, "file_name": "a.png"}], []).read_text())
    with refuses(InputError, "it has one.json, two.json"):
        load_samples(pictures, folder, CLASSES)


def test_label_files_without_any_object_are_refused(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    voc(tmp_path / "xml" / "a.xml")
    with refuses(InputError, "there is no object in any of the label files", "(1)"):
        load_samples(pictures, tmp_path / "xml", CLASSES)


def test_files_are_read_up_to_what_labels_and_pictures_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MiB of a text or an XML file, 1 GiB of a picture, and 2 GiB of a whole set's labels."""
    pictures = write_pictures(tmp_path / "a.png")
    text = write(tmp_path / "yolo" / "a.txt", "0 0.5 0.5 0.5 0.25").parent
    cat = OBJECT.format(name="cat", difficult=0, box=(1, 2, 11, 22))
    xml = voc(tmp_path / "xml" / "a.xml", cat)
    json_ = coco(tmp_path, [{"id": 1, "file_name": "a.png"}], [])
    limits: dict[str, int] = {}

    def noting(path: Path, most: int) -> bytes:
        limits[path.suffix] = most
        return read_file(path, most)

    for module in (coco_labels, voc_labels, yolo_labels):
        monkeypatch.setattr(module, "read_file", noting)
    for labels in (text, xml, json_):
        load_samples(pictures, labels, CLASSES)
    assert limits == {".txt": 2**26, ".png": 2**30, ".xml": 2**26, ".json": 2**31}


def test_what_is_long_is_told_in_part(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "a.png")
    xml = tmp_path / "xml" / "a.xml"
    with refuses(InputError, f"a.xml holds {'t' * 40!r}, expected"):
        load_samples(pictures, write(xml, f"<{'t' * 50}/>").parent, CLASSES)
    item = OBJECT.format(name="cat", difficult=0, box=("n" * 50, 0, 1, 1))
    with refuses(InputError, f"object/bndbox/xmin is {'n' * 40!r}, expected a number"):
        load_samples(pictures, voc(xml, item).parent, CLASSES)
    text = write(tmp_path / "yolo" / "a.txt", "0 " + "x" * 90)
    with refuses(InputError, f"a.txt, line 1 ({'0 ' + 'x' * 58!r}) holds something that is not"):
        load_samples(pictures, text.parent, CLASSES)
