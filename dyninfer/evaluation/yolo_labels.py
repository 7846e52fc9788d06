"""Labels in YOLO's format: a text file for each picture, with a line for each object.

``class centre_x centre_y width height``, in shares of the picture, or ``class x y x y x y ...``, an
outline; see https://docs.ultralytics.com/datasets/detect.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dyninfer.errors import ConfigError, InputError, MissingExtra
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.images.headers import picture_size
from dyninfer.images.pictures import decode_image
from dyninfer.plain_text import counted
from dyninfer.results.class_lists import names_from

_LARGEST_TEXT = 64 << 20  # bytes
_LARGEST_PICTURE = 1 << 30
NAME_FILES = ("classes.txt", "obj.names", "names.txt")
YAML_SUFFIXES = (".yaml", ".yml")
_SLACK = 1e-3  # by which rounding may carry a share beyond 1


def yolo_payload(
    files: Sequence[Path], folder: Path, names: Sequence[str], pictures: Sequence[Path]
) -> dict[str, Any]:
    """The labels of text files as an object in COCO's format, yet to be checked.

    A picture has its label's file name, but for the suffix; of several, the one whose folder has
    the name of the label's. ``names`` are those of the classes.

    Raises:
        InputError: a file cannot be read, or a line in it is not as described.
    """
    images, annotations = [], []
    by_stem: dict[str, list[Path]] = {}
    for picture in pictures:
        by_stem.setdefault(picture.stem, []).append(picture)
    for number, path in enumerate(files):
        name = path.relative_to(folder).with_suffix("").as_posix()
        image: dict[str, Any] = {"id": number, "file_name": name}
        images.append(image)
        lines = read_text(path).splitlines()
        if not any(line.split() for line in lines):
            continue
        own = [p for p in by_stem[path.stem] if p.parent.name == path.parent.name]
        size = _size((own or by_stem[path.stem])[0])
        if size is None:
            continue  # the picture cannot be read, which is said where it is
        image |= {"width": size[0], "height": size[1]}
        for place, line in enumerate(lines, 1):
            if line.split():
                class_id, box = _object(path, place, line, len(names), size)
                annotations.append({"image_id": number, "category_id": class_id, "bbox": box})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    return {"images": images, "categories": categories, "annotations": annotations}


def _object(
    path: Path, place: int, line: str, classes: int, size: tuple[int, int]
) -> tuple[int, list[float]]:
    """The class and box (left, top, width, height in pixels) of a line."""
    words = line.split()
    where = f"{path}, line {place} ({line[:60]!r})"
    try:
        class_id, shares = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise InputError(
            f"{where} holds something that is not a number; expected class x y width height"
        ) from None
    if not 0 <= class_id < classes:
        raise InputError(
            f"{where} is of class {class_id}, and there are {classes} names, from 0 on; give the "
            "data set's YAML as annotations, or a classes.txt beside the labels"
        )
    if len(shares) in (4, 5):  # perhaps with a confidence
        x, y, width, height = shares = shares[:4]
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    elif len(shares) >= 6 and len(shares) % 2 == 0:
        left, right = min(shares[::2]), max(shares[::2])
        top, bottom = min(shares[1::2]), max(shares[1::2])
    else:
        raise InputError(
            f"{where} has {counted(len(words), 'column')}; expected class x y width height"
        )
    if not all(-_SLACK <= share <= 1 + _SLACK for share in shares):
        raise InputError(f"{where} is not in shares of the picture, from 0 to 1")
    box = [left * size[0], top * size[1], (right - left) * size[0], (bottom - top) * size[1]]
    return class_id, box


def _size(picture: Path) -> tuple[int, int] | None:
    """Width and height as the picture is shown; only one that may be turned is decoded for it."""
    try:
        data = read_file(picture, _LARGEST_PICTURE)
        size = picture_size(data)
        if size is None or b"Exif" in data[: 1 << 16]:
            image = decode_image(data, str(picture))
            size = image.shape[1], image.shape[0]
    except (OSError, InputError) as error:
        let_through(error)
        return None
    return size


def find_names(folder: Path) -> tuple[str, ...] | None:
    """Names of the classes from a file in the folder of the labels, or in one of two above it.

    A YAML file that cannot be read is passed over: it may be about something else.
    """
    for place in (folder.absolute(), *folder.absolute().parents[:2]):
        for name in NAME_FILES:
            if (place / name).is_file():
                lines = read_text(place / name).splitlines()
                return tuple(line.strip() for line in lines if line.strip())
        for path in sorted(p for suffix in YAML_SUFFIXES for p in place.glob(f"*{suffix}")):
            with suppress(InputError):
                if path.is_file() and (names := read_names(path)):
                    return names
    return None


def read_names(path: Path) -> tuple[str, ...] | None:
    """``names`` of a data set's YAML: a list, or a mapping from numbers; None where it has none.

    Every name is a text, whatever YAML would make of it: ``NO`` is no truth value.

    Raises:
        InputError: the file cannot be read, or the names are not as described.
        MissingExtra: PyYAML is not installed.
    """
    try:
        from dyninfer.safe_yaml import load_yaml
    except ImportError as error:
        raise MissingExtra(
            f"{path} is read by PyYAML, which is not installed: pip install pyyaml; or write the "
            f"names, one per line, into {NAME_FILES[0]} beside the labels"
        ) from error
    try:
        document = load_yaml(read_text(path), words=True)
    except ValueError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(document, dict) or "names" not in document:
        return None
    try:
        return names_from(document["names"], str(path))
    except ConfigError as error:
        raise InputError(str(error)) from None


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return read_file(path, _LARGEST_TEXT).decode("utf-8-sig")
    except OSError as error:
        let_through(error)
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not text ({error}); expected labels in YOLO's format"
        ) from None
