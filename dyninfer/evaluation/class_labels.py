"""Which class each picture shows: from its folder, a table, or annotations."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dyninfer.errors import InputError
from dyninfer.evaluation.coco_labels import (
    LARGEST_LABELS,
    CocoLabels,
    ImageLabel,
    match_images,
    parse_coco,
    read_json,
)
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.images.folders import SUFFIXES
from dyninfer.plain_text import counted, some
from dyninfer.results.class_lists import match_names

Labelled = list[tuple[Path, int]]
"""Pictures, each with the id of its class."""


def classes_by_folder(pictures: Sequence[Path], class_names: Sequence[str]) -> Labelled:
    """Classes of pictures that lie in folders named after them: ``val/cat/1.jpg``.

    Raises:
        InputError: a folder is named after no class.
    """
    folders = [picture.absolute().parent.name for picture in pictures]
    return list(zip(pictures, _class_ids("a folder is called", folders, class_names), strict=True))


def read_classes(
    path: Path, pictures: Sequence[Path], class_names: Sequence[str]
) -> tuple[Labelled, list[str]]:
    """Classes from a file, and what is left out, one line each.

    A CSV holds a picture's file name and its class in each line, with a line of titles or without.
    A JSON object maps names to classes, or is in COCO's format, with one category for each picture.

    Raises:
        InputError: the file cannot be read, lists none of the pictures, names a class that is
            unknown, or gives a picture several.
    """
    labels = _table(path) if path.suffix.lower() == ".csv" else _from_json(path)
    images, given, warnings = match_images(path, labels, pictures)
    names = {category.id: category.name for category in labels.categories}
    files = {image.id: image.file_name for _, image in images}
    found: dict[str, str] = {}
    for label in given:
        name = names[label.category_id]
        if found.setdefault(label.image_id, name) != name:
            raise InputError(
                f"{path} gives {files[label.image_id]} the classes {found[label.image_id]} and "
                f"{name}, expected one; annotations of objects are for detectors"
            )
    if bare := [picture.name for picture, image in images if image.id not in found]:
        warnings.append(f"left out, without a class: {counted(len(bare), 'picture')}: {some(bare)}")
    kept = [(picture, found[image.id]) for picture, image in images if image.id in found]
    ids = _class_ids(f"{path} has the class", [name for _, name in kept], class_names)
    return [(picture, id_) for (picture, _), id_ in zip(kept, ids, strict=True)], warnings


def _from_json(path: Path) -> CocoLabels[ImageLabel]:
    payload: Mapping[str, Any] = read_json(path)
    if payload and all(isinstance(value, str) for value in payload.values()):
        return _listed(path, list(payload.items()))
    expected = (
        "one category_id for each image (or a JSON object of file name: class name, or a CSV)"
    )
    return parse_coco(path, dict(payload), CocoLabels[ImageLabel], expected)


def _table(path: Path) -> CocoLabels[ImageLabel]:
    try:
        text = read_file(path, LARGEST_LABELS).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(row)]
    except OSError as error:
        let_through(error)
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is not CSV ({error}); expected lines of file name,class"
        ) from None
    if rows and Path(rows[0][0]).suffix.lower() not in SUFFIXES:
        rows = rows[1:]  # titles of the columns
    if not rows:
        raise InputError(f"{path} lists no picture, expected lines of file name,class")
    if strange := [row for row in rows if len(row) != 2]:
        raise InputError(
            f"{path} has a line of {counted(len(strange[0]), 'column')} "
            f"({','.join(strange[0])[:80]}), expected two: file name,class"
        )
    return _listed(path, [(name.strip(), class_.strip()) for name, class_ in rows])


def _listed(path: Path, pairs: Sequence[tuple[str, str]]) -> CocoLabels[ImageLabel]:
    """File names with the names of their classes, as COCO has them."""
    names = dict.fromkeys(class_ for _, class_ in pairs)
    numbers = {name: number for number, name in enumerate(names)}
    payload = {
        "images": [{"id": n, "file_name": name} for n, (name, _) in enumerate(pairs)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {"image_id": n, "category_id": numbers[class_]} for n, (_, class_) in enumerate(pairs)
        ],
    }
    return parse_coco(path, payload, CocoLabels[ImageLabel], "at least one file name and class")


def _class_ids(said: str, names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The id of each class by its name; refuses unknown ones by the most frequent of them."""
    counts = Counter(names)
    ids = dict(zip(counts, match_names(list(counts), class_names), strict=True))
    unknown = [(name, count) for name, count in counts.most_common() if ids[name] is None]
    if unknown:
        name, count = unknown[0]
        more = f", and {counted(len(unknown) - 1, 'more name')}" if len(unknown) > 1 else ""
        near = difflib.get_close_matches(name, class_names, 1)
        expected = f"the nearest class is {near[0]}" if near else f"expected {some(class_names)}"
        raise InputError(
            f"{said} {name} ({counted(count, 'picture')}{more}), which is not a class of the "
            f"bundle; {expected}"
        )
    return [id_ for id_ in (ids[name] for name in names) if id_ is not None]
