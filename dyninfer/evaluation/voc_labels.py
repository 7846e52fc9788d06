"""Labels in Pascal VOC's format: an XML file for each picture.

Format: Everingham et al., "The Pascal Visual Object Classes Challenge", 2010, and what labelling
tools write. Corners are taken as they stand, since most tools count pixels from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from dyninfer.errors import InputError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through

_LARGEST_XML = 64 << 20  # bytes
_MOST_LEVELS = 64
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_payload(files: Sequence[Path], folder: Path, stems: frozenset[str]) -> dict[str, Any]:
    """The labels of XML files as an object in COCO's format, yet to be checked.

    A picture is known by its label's file name without the suffix, which is one of ``stems``, or
    else by what the label calls it. Objects that are marked as difficult count neither way.

    Raises:
        InputError: a file cannot be read, or is no such label.
    """
    images, annotations = [], []
    numbers: dict[str, int] = {}
    for number, path in enumerate(files):
        root = _read(path)
        name = root.findtext("filename")
        by_label = path.relative_to(folder).with_suffix("").as_posix()
        image = {"id": number, "file_name": by_label}
        if path.stem not in stems and name:
            image["file_name"] = name
        width, height = (_number(path, root, f"size/{side}", 0) for side in ("width", "height"))
        if width and height:
            image |= {"width": width, "height": height}
        images.append(image)
        for item in root.iter("object"):
            left, top, right, bottom = (
                _number(path, item, f"bndbox/{corner}") for corner in _CORNERS
            )
            category = (item.findtext("name") or "").strip()
            annotation = {
                "image_id": number,
                "category_id": numbers.setdefault(category, len(numbers)),
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": bool(_number(path, item, "difficult", 0)),
            }
            annotations.append(annotation)
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "categories": categories, "annotations": annotations}


def _number(path: Path, element: Element, place: str, otherwise: float | None = None) -> float:
    text = element.findtext(place)
    if otherwise is not None and not (text and text.strip()):
        return otherwise
    try:
        return float(text or "")
    except ValueError:
        raise InputError(
            f"{path}: {element.tag}/{place} is {text and text[:40]!r}, expected a number"
        ) from None


def _read(path: Path) -> Element:
    """The root of an XML file without a document type, by which a few lines become billions."""
    builder, level = TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal level
        level += 1
        if level > _MOST_LEVELS:
            raise ValueError(f"its parts are nested more than {_MOST_LEVELS} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal level
        level -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise ValueError("it declares a document type, which labels have no use for")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(read_file(path, _LARGEST_XML), True)
    except OSError as error:
        let_through(error)
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not readable XML: {error}") from None
    root = builder.close()
    if root.tag != "annotation":
        raise InputError(f"{path} holds {root.tag[:40]!r}, expected a VOC label: <annotation>")
    return root
