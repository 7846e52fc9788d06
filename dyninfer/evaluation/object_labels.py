"""Labels of objects, whatever they are written in: COCO's JSON, VOC's XML or YOLO's texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dyninfer.bundle.inside import file_sha256
from dyninfer.errors import InputError
from dyninfer.evaluation.coco_labels import BoxLabel, CocoLabels, parse_coco, read_json
from dyninfer.evaluation.voc_labels import voc_payload
from dyninfer.evaluation.yolo_labels import (
    NAME_FILES,
    YAML_SUFFIXES,
    find_names,
    read_names,
    yolo_payload,
)
from dyninfer.plain_text import counted, some

_BOX = "bbox as x, y, width, height"


class ObjectLabels(NamedTuple):
    """Labels in COCO's terms, a hash of the files that they are from, and lines for the user."""

    labels: CocoLabels[BoxLabel]
    sha256: str
    warnings: list[str]


def read_objects(path: Path, pictures: Sequence[Path], class_names: Sequence[str]) -> ObjectLabels:
    """The labels at a path, in COCO's, VOC's or YOLO's format.

    These are: a JSON file; an XML file, or a folder of them; a folder of texts, or the YAML of
    their data set. In folders, only labels of the ``pictures`` are read, which are known by their
    names without suffixes.

    Args:
        path: of the labels.
        pictures: that they are of.
        class_names: of the bundle, for YOLO's labels without names.

    Raises:
        InputError: there are no labels, or of none of the pictures, or they cannot be read.
    """
    if path.suffix.lower() in YAML_SUFFIXES and not path.is_dir():
        return _read_yolo(path, path.parent, pictures, read_names(path), class_names)
    if path.suffix.lower() == ".xml" and not path.is_dir():
        return _parsed(path, voc_payload([path], path.parent, _stems(pictures)), [path], [])
    if not path.is_dir():
        labels = parse_coco(path, read_json(path), CocoLabels[BoxLabel], _BOX)
        return ObjectLabels(labels, file_sha256(path), [])
    if xml := _of(pictures, path.rglob("*.xml")):
        return _parsed(path, voc_payload(xml, path, _stems(pictures)), xml, [])
    if _of(pictures, path.rglob("*.txt")):
        return _read_yolo(path, path, pictures, find_names(path), class_names)
    if len(found := sorted(path.glob("*.json"))) == 1:
        return read_objects(found[0], pictures, class_names)
    held = some(sorted(entry.name for entry in path.iterdir())) or "nothing"
    raise InputError(
        f"the folder {path} has no label of any of the pictures ({len(pictures)}): NAME.xml (VOC) "
        f"or NAME.txt (YOLO) for NAME.jpg, or one JSON file in COCO's format; it has {held}"
    )


def _read_yolo(
    path: Path,
    folder: Path,
    pictures: Sequence[Path],
    names: Sequence[str] | None,
    class_names: Sequence[str],
) -> ObjectLabels:
    files = [text for text in _of(pictures, folder.rglob("*.txt")) if text.name not in NAME_FILES]
    if not files:
        raise InputError(
            f"{folder} has no label NAME.txt of any of the pictures ({len(pictures)}); give the "
            "folder of the labels"
        )
    warnings = []
    if names is None:
        names = class_names
        warnings.append(
            f"{path} has no names of its classes (a data set's YAML, or {NAME_FILES[0]}); its "
            "numbers are taken as the detector's own"
        )
    payload = yolo_payload(files, folder, names, pictures)
    labelled = {file.stem for file in files}
    if bare := [picture for picture in pictures if picture.stem not in labelled]:
        payload["images"] += [
            {"id": len(files) + number, "file_name": picture.as_posix()}
            for number, picture in enumerate(bare)
        ]
        warnings.append(
            f"without a label file, taken as empty: {counted(len(bare), 'picture')}: "
            f"{some([picture.name for picture in bare])}"
        )
    return _parsed(path, payload, files, warnings)


def _parsed(
    path: Path, payload: dict[str, Any], files: Sequence[Path], warnings: list[str]
) -> ObjectLabels:
    if not payload["categories"]:
        raise InputError(f"there is no object in any of the label files in {path} ({len(files)})")
    labels = parse_coco(path, payload, CocoLabels[BoxLabel], _BOX)
    lines = sorted(f"{file.name} {file_sha256(file)}" for file in files)
    return ObjectLabels(labels, hashlib.sha256("\n".join(lines).encode()).hexdigest(), warnings)


def _stems(pictures: Sequence[Path]) -> frozenset[str]:
    return frozenset(picture.stem for picture in pictures)


def _of(pictures: Sequence[Path], labels: Iterable[Path]) -> list[Path]:
    """The labels that are of one of the pictures."""
    stems = _stems(pictures)
    return sorted(label for label in labels if label.stem in stems)
