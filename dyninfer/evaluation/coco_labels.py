"""Labels in COCO's instances format, and which of the pictures they are of."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dyninfer.bundle.documents import first_problem, parse_json
from dyninfer.errors import InputError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.plain_text import counted, some

LARGEST_LABELS = 2 << 30  # bytes; those of COCO's and LVIS's training sets have 0.5 and 1.1 GB
_Length = Annotated[float, Field(ge=0)]


def _as_text(value: Any) -> Any:
    """A number as the text that others write for it, whole ones without their point."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return str(int(value)) if float(value).is_integer() else value


_Id = Annotated[str, BeforeValidator(_as_text)]
"""Of a picture or category: a whole number or a text; 7 and "7" are the same."""


class LabelledImage(BaseModel):
    """A picture that the labels list."""

    id: _Id
    file_name: str
    width: int | None = None
    height: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, where both are said."""
        return (self.width, self.height) if self.width and self.height else None


class Category(BaseModel):
    """What the labels call a class."""

    id: _Id
    name: str


class ImageLabel(BaseModel):
    """A category of a picture."""

    model_config = ConfigDict(allow_inf_nan=False)
    image_id: _Id
    category_id: _Id


class BoxLabel(ImageLabel):
    """An object in a picture; ``bbox`` is left, top, width, height in pixels."""

    bbox: tuple[float, float, _Length, _Length]
    area: float | None = None
    iscrowd: bool = False


LabelT = TypeVar("LabelT", bound=ImageLabel)


class CocoLabels(BaseModel, Generic[LabelT]):
    """COCO's instances format, https://cocodataset.org/#format-data."""

    images: list[LabelledImage] = Field(min_length=1)
    categories: list[Category] = Field(min_length=1)
    annotations: list[LabelT]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of labels; InputError where there is none."""
    try:
        payload = parse_json(read_file(path, LARGEST_LABELS))
    except OSError as error:
        let_through(error)
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); expected COCO annotations") from None
    if not isinstance(payload, dict):
        raise InputError(
            f"{path} holds a JSON {type(payload).__name__}, expected COCO annotations: an object "
            "with images, categories and annotations (a list of detections is a result, not "
            "ground truth)"
        )
    return payload


def parse_coco(
    path: Path, payload: dict[str, Any], model: type[CocoLabels[LabelT]], expected: str
) -> CocoLabels[LabelT]:
    """Labels from a JSON object of a file; ``expected`` is said of annotations of another form.

    Raises:
        InputError: it is not in COCO's format, or an id stands for two images or categories.
    """
    try:
        labels = model.model_validate(payload)
    except ValidationError as error:
        raise InputError(
            f"{path} is not in COCO's format: {first_problem(error)}; expected "
            f"images, categories and annotations with {expected}"
        ) from None
    labels.images = _each_once(path, "image", labels.images)
    labels.categories = _each_once(path, "category", labels.categories)
    return labels


EntryT = TypeVar("EntryT", LabelledImage, Category)


def _each_once(path: Path, what: str, entries: Sequence[EntryT]) -> list[EntryT]:
    """The entries without repetitions; InputError where one id stands for two."""
    by_id: dict[str, EntryT] = {}
    for entry in entries:
        known = by_id.setdefault(entry.id, entry)
        if known != entry:
            count = sum(other.id == entry.id for other in entries)
            raise InputError(
                f"{path} has the {what} id {entry.id} {count} times; give each {what} its own"
            )
    return list(by_id.values())


def _merged(
    path: Path, labels: CocoLabels[LabelT]
) -> tuple[list[LabelledImage], list[LabelT], list[str]]:
    """Images without those that are one file under several ids, and annotations of those kept.

    Raises:
        InputError: one file has two sizes.
    """
    by_file: dict[tuple[str, ...], LabelledImage] = {}
    stands_for: dict[str, str] = {}
    for image in labels.images:
        known = by_file.setdefault(_parts(image), image)
        stands_for[image.id] = known.id
        if known.size and image.size and known.size != image.size:
            raise InputError(
                f"{path} lists {image.file_name} with the ids {known.id} and {image.id} and two "
                f"sizes, {known.width}x{known.height} and {image.width}x{image.height}; "
                "which one is meant is unclear: remove one"
            )
    again = [id_ for id_, kept in stands_for.items() if id_ != kept]
    if not again:
        return labels.images, labels.annotations, []
    moved = (
        a.model_copy(update={"image_id": stands_for.get(a.image_id, a.image_id)})
        for a in labels.annotations
    )
    annotations = list({a.model_dump_json(): a for a in moved}.values())
    lost = len(labels.annotations) - len(annotations)
    line = f"listed again with another id: {counted(len(again), 'picture')}; the objects are merged"
    return (
        list(by_file.values()),
        annotations,
        [f"{line} ({counted(lost, 'duplicate')} removed)" if lost else line],
    )


def match_images(
    path: Path, labels: CocoLabels[LabelT], pictures: Sequence[Path]
) -> tuple[list[tuple[Path, LabelledImage]], list[LabelT], list[str]]:
    """(picture, its entry) for every picture that is listed, their annotations, what is left out.

    Pictures are matched by file name (where that is not listed, without regard to case, or without
    the suffix) and, where that is not enough, by their folders.

    Raises:
        InputError: the labels list none of the pictures, a picture may be several entries, two are
            the same, or an annotation is of a category that is not listed.
    """
    images, annotations, merged = _merged(path, labels)
    names = _Names(images)
    found: dict[str, tuple[Path, LabelledImage]] = {}
    unknown = []
    for picture in pictures:
        entry = _same_folders(path, picture, names.of(picture))
        if entry is None:
            unknown.append(picture.name)
        elif entry.id in found:
            raise InputError(
                f"{found[entry.id][0]} and {picture} are both {entry.file_name} of the "
                "annotations; give the pictures of one folder"
            )
        else:
            found[entry.id] = picture, entry
    if not found:
        raise InputError(
            f"{path} lists none of the pictures ({len(pictures)}): it has "
            f"{some([image.file_name for image in labels.images])}, the pictures are "
            f"{some(unknown)}; give the annotations of these pictures"
        )
    given = [label for label in annotations if label.image_id in found]
    _check_categories(path, labels, given)
    left_out = _left_out(images, annotations, len(found), unknown)
    return list(found.values()), given, [*merged, *left_out]


def _check_categories(path: Path, labels: CocoLabels[LabelT], given: Sequence[LabelT]) -> None:
    listed = {category.id for category in labels.categories}
    if undefined := {label.category_id for label in given} - listed:
        raise InputError(
            f"{path} has objects of category {min(undefined)}, which is not among its categories; "
            "add it there"
        )


def _left_out(
    images: Sequence[LabelledImage],
    annotations: Sequence[ImageLabel],
    found: int,
    unknown: Sequence[str],
) -> list[str]:
    lines = []
    listed = {image.id for image in images}
    if astray := sum(a.image_id not in listed for a in annotations):
        lines.append(f"of pictures that the annotations do not list: {counted(astray, 'object')}")
    if unknown:
        lines.append(
            f"left out, without annotations: {counted(len(unknown), 'picture')}: {some(unknown)}"
        )
    if missing := len(images) - found:
        lines.append(f"not given: {missing} of {counted(len(images), 'annotated picture')}")
    return lines


def _parts(image: LabelledImage) -> tuple[str, ...]:
    name = unicodedata.normalize("NFC", image.file_name)
    return PurePosixPath(name.replace("\\", "/")).parts or ("",)


class _Names:
    """Images by their file names as they are, without regard to case, and without a suffix."""

    def __init__(self, images: Sequence[LabelledImage]) -> None:
        self._exact: dict[str, list[LabelledImage]] = {}
        self._loose: dict[str, list[LabelledImage]] = {}
        for image in images:
            name = _parts(image)[-1]
            self._exact.setdefault(name, []).append(image)
            self._loose.setdefault(name.casefold(), []).append(image)

    def of(self, picture: Path) -> list[LabelledImage]:
        """The images that a picture may be, by the strictest form that any has."""
        name = unicodedata.normalize("NFC", picture.name)
        stem = PurePosixPath(name).stem  # "1.jpg" is no "1.png", but it may be listed as "1"
        loose = self._loose.get(name.casefold()) or self._loose.get(stem.casefold())
        return self._exact.get(name) or loose or []


def _same_folders(
    path: Path, picture: Path, entries: Sequence[LabelledImage]
) -> LabelledImage | None:
    """The entry whose folders agree with the picture's over most of them from the end.

    Of several, one that has no further folders, with which the picture's would disagree.
    """
    folders = [unicodedata.normalize("NFC", part) for part in picture.parts[-2::-1]]

    def agreement(entry: LabelledImage) -> tuple[int, bool]:
        theirs = _parts(entry)[-2::-1]
        equal = [a == b for a, b in zip(folders, theirs, strict=False)]
        count = equal.index(False) if False in equal else len(equal)
        return count, count == len(theirs)

    most = max(map(agreement, entries), default=(0, True))
    best = [entry for entry in entries if agreement(entry) == most]
    if len(best) > 1:
        raise InputError(
            f"{picture} may be any of {some([entry.file_name for entry in best])} of {path}; "
            "keep the pictures in folders of the names that the annotations have"
        )
    return best[0] if best else None
