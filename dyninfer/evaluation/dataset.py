"""Pictures, and what is known of them: objects or a class, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Task
from dyninfer.errors import InputError
from dyninfer.evaluation.class_labels import classes_by_folder, read_classes
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.coco_labels import (
    BoxLabel,
    CocoLabels,
    LabelledImage,
    match_images,
)
from dyninfer.evaluation.object_labels import read_objects
from dyninfer.plain_text import counted, some
from dyninfer.results.class_lists import match_names

_SLACK = 2  # pixels by which rounding may carry a box beyond its picture


@dataclass(frozen=True)
class Sample:
    """A picture's file and what is known of it.

    ``size`` is the width and height that annotations say; ``class_id`` the class that it shows.
    """

    path: Path
    truth: Truth | None = None
    size: tuple[int, int] | None = None
    class_id: int | None = None


@dataclass(frozen=True)
class Samples:
    """A set of pictures.

    Attributes:
        items: the pictures in order; of all of them something is known, or of none.
        warnings: what was left out, one line each.
        labels_sha256: hash of the labels, or None where nothing is known.
    """

    items: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    labels_sha256: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether something is known of the pictures."""
        return any(item.truth is not None or item.class_id is not None for item in self.items)

    @property
    def truths(self) -> list[Truth] | None:
        """What is in every picture, or None where that is not known."""
        found = [item.truth for item in self.items if item.truth is not None]
        return found if found else None

    def sha256(self) -> str:
        """Hash of the sorted hashes of all files: names and order do not matter."""
        hashes = sorted(file_sha256(item.path) for item in self.items)
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def load_samples(
    pictures: Sequence[Path],
    annotations: Path | None,
    class_names: Sequence[str],
    task: Task = Task.DETECT,
) -> Samples:
    """Pictures with what is known of them.

    Pictures are matched with the annotations by file name, and names of classes with the bundle's.
    With annotations, pictures that these do not list are left out.

    Args:
        pictures: files.
        annotations: a JSON file in COCO's format, for a detector also what
            :func:`dyninfer.evaluation.object_labels.read_objects` reads, for a classifier what
            :func:`dyninfer.evaluation.class_labels.read_classes` reads; or None, where a
            classifier's pictures may lie in a folder for each class.
        class_names: of the bundle, by class id.
        task: of the bundle.

    Raises:
        InputError: the annotations cannot be read, list none of the pictures, or have no category
            in common with the bundle; or it is a backbone, which finds nothing.
    """
    if task is Task.FEATURES and annotations is not None:
        raise InputError(
            "a backbone ends in feature maps, in which nothing is found that labels could be "
            "compared with; expected a detector or a classifier"
        )
    if task is Task.CLASSIFY:
        return _load_classes(pictures, annotations, class_names)
    if annotations is None:
        return Samples(tuple(Sample(path) for path in pictures))
    return _load_objects(pictures, annotations, class_names)


def _load_objects(
    pictures: Sequence[Path], annotations: Path, class_names: Sequence[str]
) -> Samples:
    labels, digest, notes = read_objects(annotations, pictures, class_names)
    images, given, left_out = match_images(annotations, labels, pictures)
    objects: dict[str, list[BoxLabel]] = {image.id: [] for _, image in images}
    class_ids, warnings = _match_categories(annotations, labels, given, class_names)
    for annotation in given:
        if annotation.category_id in class_ids:
            objects[annotation.image_id].append(annotation)
    items = tuple(
        Sample(path, _truth(objects[image.id], class_ids), image.size) for path, image in images
    )
    warnings += [
        *notes,
        *left_out,
        *_doubt_boxes(annotations, [(i, objects[i.id]) for _, i in images]),
    ]
    return Samples(items, tuple(warnings), digest)


def _load_classes(
    pictures: Sequence[Path], annotations: Path | None, class_names: Sequence[str]
) -> Samples:
    if annotations is None:
        try:
            found = classes_by_folder(pictures, class_names)
        except InputError as error:  # raised again where labels are needed
            folders = sorted({path.absolute().parent.name for path in pictures})
            some_fit = any(found is not None for found in match_names(folders, class_names))
            warnings = [f"labels are left out: {error}"] if some_fit else []
            return Samples(tuple(Sample(path) for path in pictures), tuple(warnings))
        lines = sorted(f"{file_sha256(path)} {class_names[id_]}" for path, id_ in found)
        digest, warnings = hashlib.sha256("\n".join(lines).encode()).hexdigest(), []
    else:
        found, warnings = read_classes(annotations, pictures, class_names)
        digest = file_sha256(annotations)
    items = tuple(Sample(path, class_id=id_) for path, id_ in found)
    return Samples(items, tuple(warnings), digest)


def _match_categories(
    path: Path,
    labels: CocoLabels[BoxLabel],
    given: Sequence[BoxLabel],
    class_names: Sequence[str],
) -> tuple[dict[str, int], list[str]]:
    """Category id -> class id, and what is left out of the objects in the pictures given."""
    matched = match_names([category.name for category in labels.categories], class_names)
    pairs = zip(labels.categories, matched, strict=True)
    class_ids = {category.id: found for category, found in pairs if found is not None}
    if not class_ids:
        raise InputError(
            f"no category of {path} ({some([c.name for c in labels.categories])}) is a class of "
            f"the detector ({some(class_names)}); rename them, or export it with "
            "other class names (--class-names)"
        )
    used = {annotation.category_id for annotation in given}
    lost = [c for c in labels.categories if c.id not in class_ids and c.id in used]
    if not lost:
        return class_ids, []
    count = sum(a.category_id in {c.id for c in lost} for a in given)
    return class_ids, [
        f"left out, of categories that the detector does not know: {counted(count, 'object')}, of "
        f"{some([c.name for c in lost])}"
    ]


def _doubt_boxes(
    path: Path, labelled: Sequence[tuple[LabelledImage, Sequence[BoxLabel]]]
) -> list[str]:
    """A line where boxes reach beyond their pictures, as corners taken for sizes do."""
    ends = [
        (image, a.bbox[0] + a.bbox[2], a.bbox[1] + a.bbox[3])
        for image, annotations in labelled
        for a in annotations
    ]
    whole = all(side.is_integer() for _, *sides in ends for side in sides)
    if not whole and all(right <= 1 and bottom <= 1 for _, right, bottom in ends):
        raise InputError(
            f"every box of {path} lies within one pixel, so they seem to be shares of "
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
        f"beyond the edge of their pictures: {len(beyond)} of {counted(len(ends), 'box')}, the "
        f"first in {beyond[0]}; bbox should be x, y, width, height in pixels"
    ]


def _truth(objects: Sequence[BoxLabel], class_ids: Mapping[str, int]) -> Truth:
    boxes = np.array([annotation.bbox for annotation in objects], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    areas = [o.bbox[2] * o.bbox[3] if o.area is None else o.area for o in objects]
    return Truth(
        boxes_xyxy=boxes,
        class_ids=np.array([class_ids[o.category_id] for o in objects], np.int64),
        crowd=np.array([o.iscrowd for o in objects], np.bool_),
        areas=np.array(areas, np.float64),
    )
