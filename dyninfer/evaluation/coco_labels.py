"""Labels in COCO's instances format, and which of the pictures they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dyninfer.bundle.documents import first_problem, parse_json
from dyninfer.errors import InputError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through

LARGEST_LABELS = 2 << 30  # bytes; those of COCO's and LVIS's training sets have 0.5 and 1.1 GB
_SHOWN = 4
_Length = Annotated[float, Field(ge=0)]


class LabelledImage(BaseModel):
    """A picture that the labels list."""

    id: int
    file_name: str
    width: int | None = None
    height: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, where both are said."""
        return (self.width, self.height) if self.width and self.height else None


class Category(BaseModel):
    """What the labels call a class."""

    id: int
    name: str


class ImageLabel(BaseModel):
    """A category of a picture."""

    model_config = ConfigDict(allow_inf_nan=False)
    image_id: int
    category_id: int


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
            "with images, categories and annotations (a list of detections is a result, no truth)"
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


def match_images(
    path: Path, labels: CocoLabels[LabelT], pictures: Sequence[Path]
) -> tuple[list[tuple[Path, LabelledImage]], list[LabelT], list[str]]:
    """(picture, its entry) for every picture that is listed, their annotations, what is left out.

    Pictures are matched by file name and, where that is not enough, by their folders.

    Raises:
        InputError: the labels list none of the pictures, a picture may be several entries, two are
            the same, or an annotation is of a category that is not listed.
    """
    by_name: dict[str, list[LabelledImage]] = {}
    for image in labels.images:
        by_name.setdefault(_parts(image)[-1], []).append(image)
    found: dict[int, tuple[Path, LabelledImage]] = {}
    unknown = []
    for picture in pictures:
        entry = _same_folders(path, picture, by_name.get(picture.name, []))
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
            f"{path} lists none of the {len(pictures)} pictures: it has "
            f"{some([image.file_name for image in labels.images])}, the pictures are "
            f"{some(unknown)}; give the annotations of these pictures"
        )
    given = [label for label in labels.annotations if label.image_id in found]
    _check_categories(path, labels, given)
    return list(found.values()), given, _left_out(labels, len(found), unknown)


def _check_categories(path: Path, labels: CocoLabels[LabelT], given: Sequence[LabelT]) -> None:
    listed = {category.id for category in labels.categories}
    if undefined := {label.category_id for label in given} - listed:
        raise InputError(
            f"{path} has objects of category {min(undefined)}, which is not among its categories; "
            "add it there"
        )


def _left_out(labels: CocoLabels[LabelT], found: int, unknown: Sequence[str]) -> list[str]:
    lines = []
    listed = {image.id for image in labels.images}
    if astray := sum(a.image_id not in listed for a in labels.annotations):
        lines.append(f"{astray} objects are of pictures that the annotations do not list")
    if unknown:
        lines.append(f"{len(unknown)} pictures without annotations are left out: {some(unknown)}")
    if missing := len(labels.images) - found:
        lines.append(f"{missing} of {len(labels.images)} annotated pictures were not given")
    return lines


def _parts(image: LabelledImage) -> tuple[str, ...]:
    return PurePosixPath(image.file_name.replace("\\", "/")).parts or ("",)


def _same_folders(
    path: Path, picture: Path, entries: Sequence[LabelledImage]
) -> LabelledImage | None:
    """The entry whose path agrees with the picture's over most folders from the end."""

    def agreement(entry: LabelledImage) -> int:
        pairs = zip(reversed(picture.parts), reversed(_parts(entry)), strict=False)
        equal = [a == b for a, b in pairs]
        return equal.index(False) if False in equal else len(equal)

    most = max(map(agreement, entries), default=0)
    best = [entry for entry in entries if agreement(entry) == most]
    if len(best) > 1:
        raise InputError(
            f"{picture} may be any of {some([entry.file_name for entry in best])} of {path}; "
            "keep the pictures in folders of the names that the annotations have"
        )
    return best[0] if best else None


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
