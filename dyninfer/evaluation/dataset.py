"""Pictures, and what is known to be in them: a folder, with COCO annotations or without."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dyninfer.bundle.folder import file_sha256
from dyninfer.bundle.validation import first_problem
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth
from dyninfer.results.class_lists import match_names

_SHOWN = 4
_SLACK = 2  # pixels by which rounding may carry a box beyond its picture


@dataclass(frozen=True)
class Sample:
    """A picture's file and what is in it.

    ``truth`` is None where nothing is known; ``size`` is the (width, height) that the annotations
    say the picture has, or None.
    """

    path: Path
    truth: Truth | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Samples:
    """A set of pictures.

    Attributes:
        items: the pictures in order; all have a truth, or none has.
        warnings: what was left out, one line each.
        labels_sha256: hash of the annotations' file, or None.
    """

    items: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    labels_sha256: str | None = None

    @property
    def truths(self) -> list[Truth] | None:
        """What is in every picture, or None where that is not known."""
        found = [item.truth for item in self.items if item.truth is not None]
        return found if found else None

    def sha256(self) -> str:
        """Hash of the sorted hashes of all files: names and order do not matter."""
        hashes = sorted(file_sha256(item.path) for item in self.items)
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, where both are said."""
        return (self.width, self.height) if self.width and self.height else None


class _Category(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int
    name: str


_Length = Annotated[float, Field(ge=0)]


class _Annotation(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    image_id: int
    category_id: int
    bbox: tuple[float, float, _Length, _Length]
    area: float | None = None
    iscrowd: bool = False


class _Coco(BaseModel):
    """COCO's instances format, https://cocodataset.org/#format-data."""

    model_config = ConfigDict(extra="ignore")
    images: list[_Image] = Field(min_length=1)
    categories: list[_Category] = Field(min_length=1)
    annotations: list[_Annotation]


def load_samples(
    pictures: Sequence[Path], annotations: Path | None, class_names: Sequence[str]
) -> Samples:
    """Pictures with what is in them.

    Pictures are matched with the annotations by file name, categories with the detector's classes
    by name. With annotations, pictures that these do not list are left out.

    Args:
        pictures: files.
        annotations: a JSON file in COCO's format, or None.
        class_names: of the detector, by class id.

    Raises:
        InputError: the annotations cannot be read, list none of the pictures, or have no category
            in common with the detector.
    """
    if annotations is None:
        return Samples(tuple(Sample(path) for path in pictures))
    labels = _read(annotations)
    images, left_out = _match_images(annotations, labels, pictures)
    objects: dict[int, list[_Annotation]] = {image.id: [] for _, image in images}
    given = [a for a in labels.annotations if a.image_id in objects]
    class_ids, warnings = _match_categories(annotations, labels, given, class_names)
    for annotation in given:
        if annotation.category_id in class_ids:
            objects[annotation.image_id].append(annotation)
    items = tuple(
        Sample(path, _truth(objects[image.id], class_ids), image.size) for path, image in images
    )
    warnings += [*left_out, *_doubt_boxes(annotations, [(i, objects[i.id]) for _, i in images])]
    return Samples(items, tuple(warnings), file_sha256(annotations))


def _read(path: Path) -> _Coco:
    try:
        payload: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); expected COCO annotations") from None
    if not isinstance(payload, dict):
        raise InputError(
            f"{path} holds a JSON {type(payload).__name__}, expected COCO annotations: an object "
            "with images, categories and annotations (a list of detections is a result, no truth)"
        )
    try:
        labels = _Coco.model_validate(payload)
    except ValidationError as error:
        raise InputError(
            f"{path} is not in COCO's format: {first_problem(error)}; expected "
            "images, categories and annotations with bbox as x, y, width, height"
        ) from None
    for what, ids in (
        ("image", [image.id for image in labels.images]),
        ("category", [category.id for category in labels.categories]),
    ):
        number, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{path} has the {what} id {number} {count} times; give each {what} its own"
            )
    return labels


def _match_categories(
    path: Path, labels: _Coco, given: Sequence[_Annotation], class_names: Sequence[str]
) -> tuple[dict[int, int], list[str]]:
    """Category id -> class id, and what is left out of the objects in the pictures given."""
    matched = match_names([category.name for category in labels.categories], class_names)
    pairs = zip(labels.categories, matched, strict=True)
    class_ids = {category.id: found for category, found in pairs if found is not None}
    if not class_ids:
        raise InputError(
            f"no category of {path} ({_some([c.name for c in labels.categories])}) is a class of "
            f"the detector ({_some(class_names)}); rename them, or export with --class-names"
        )
    used = {annotation.category_id for annotation in given}
    if undefined := used - {category.id for category in labels.categories}:
        raise InputError(
            f"{path} has objects of category {min(undefined)}, which is not among its categories; "
            "add it there"
        )
    lost = [c for c in labels.categories if c.id not in class_ids and c.id in used]
    if not lost:
        return class_ids, []
    count = sum(a.category_id in {c.id for c in lost} for a in given)
    return class_ids, [
        f"{count} objects of categories that the detector does not know are left out: "
        f"{_some([c.name for c in lost])}"
    ]


def _match_images(
    path: Path, labels: _Coco, pictures: Sequence[Path]
) -> tuple[list[tuple[Path, _Image]], list[str]]:
    """(picture, its entry) for every picture that the annotations list, and what is left out."""
    by_name: dict[str, list[_Image]] = {}
    for image in labels.images:
        name = PurePosixPath(image.file_name.replace("\\", "/")).name
        by_name.setdefault(name, []).append(image)
    found: list[tuple[Path, _Image]] = []
    unknown = []
    for picture in pictures:
        entry = _same_folders(path, picture, by_name.get(picture.name, []))
        if entry is None:
            unknown.append(picture.name)
        else:
            found.append((picture, entry))
    if not found:
        raise InputError(
            f"{path} lists none of the {len(pictures)} pictures: it has "
            f"{_some([image.file_name for image in labels.images])}, the pictures are "
            f"{_some(unknown)}; give the annotations of these pictures"
        )
    _refuse_twins(found)
    warnings = []
    listed = {image.id for image in labels.images}
    if astray := sum(a.image_id not in listed for a in labels.annotations):
        warnings.append(f"{astray} objects are of pictures that the annotations do not list")
    if unknown:
        warnings.append(
            f"{len(unknown)} pictures without annotations are left out: {_some(unknown)}"
        )
    if missing := len(labels.images) - len(found):
        warnings.append(f"{missing} of {len(labels.images)} annotated pictures were not given")
    return found, warnings


def _same_folders(path: Path, picture: Path, entries: Sequence[_Image]) -> _Image | None:
    """The entry whose path agrees with the picture's over most folders from the end.

    Raises:
        InputError: several entries agree equally well.
    """

    def agreement(entry: _Image) -> int:
        theirs = PurePosixPath(entry.file_name.replace("\\", "/")).parts
        pairs = zip(reversed(picture.parts), reversed(theirs), strict=False)
        equal = [a == b for a, b in pairs]
        return equal.index(False) if False in equal else len(equal)

    most = max(map(agreement, entries), default=0)
    best = [entry for entry in entries if agreement(entry) == most]
    if len(best) > 1:
        raise InputError(
            f"{picture} may be any of {_some([entry.file_name for entry in best])} of {path}; "
            "keep the pictures in folders of the names that the annotations have"
        )
    return best[0] if best else None


def _refuse_twins(found: Sequence[tuple[Path, _Image]]) -> None:
    seen: dict[int, Path] = {}
    for picture, entry in found:
        if entry.id in seen:
            raise InputError(
                f"{seen[entry.id]} and {picture} are both {entry.file_name} of the annotations; "
                "give the pictures of one folder"
            )
        seen[entry.id] = picture


def _doubt_boxes(path: Path, labelled: Sequence[tuple[_Image, Sequence[_Annotation]]]) -> list[str]:
    """A line where boxes reach beyond their pictures, as corners taken for sizes do.

    Raises:
        InputError: all boxes lie within one pixel, as shares of the picture do.
    """
    ends = [
        (image, a.bbox[0] + a.bbox[2], a.bbox[1] + a.bbox[3])
        for image, annotations in labelled
        for a in annotations
    ]
    whole = all(side.is_integer() for _, *sides in ends for side in sides)
    if not whole and all(right <= 1 and bottom <= 1 for _, right, bottom in ends):
        raise InputError(
            f"all {len(ends)} boxes of {path} lie within one pixel, so they seem to be shares of "
            "the picture; expected bbox as x, y, width, height in pixels"
        )
    beyond = [
        image.file_name
        for image, right, bottom in ends
        if image.size and (right > image.size[0] + _SLACK or bottom > image.size[1] + _SLACK)
    ]
    if not beyond:
        return []
    return [
        f"{len(beyond)} of {len(ends)} boxes reach beyond their pictures, the first in "
        f"{beyond[0]}; bbox should be x, y, width, height in pixels"
    ]


def _truth(objects: Sequence[_Annotation], class_ids: Mapping[int, int]) -> Truth:
    boxes = np.array([annotation.bbox for annotation in objects], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    areas = [o.bbox[2] * o.bbox[3] if o.area is None else o.area for o in objects]
    return Truth(
        boxes_xyxy=boxes,
        class_ids=np.array([class_ids[o.category_id] for o in objects], np.int64),
        crowd=np.array([o.iscrowd for o in objects], np.bool_),
        areas=np.array(areas, np.float64),
    )


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
