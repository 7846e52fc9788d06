"""What is taken for granted of a detector where neither its file nor its user says it."""

from __future__ import annotations

import re
from enum import Enum
from typing import TypeVar

from onnx import TensorProto

from dyninfer.errors import ConfigError, InputError
from dyninfer.exporters.cascade.conventions import NO_MEAN, NO_STD, Picture
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import DetectorSource, Triple
from dyninfer.exporters.class_names import COCO, read_names
from dyninfer.images.spec import ImageSpec
from dyninfer.results.class_lists import names_from
from dyninfer.safe_yaml import load_yaml

T = TypeVar("T")


_NO_NAMES = ("", "None", "null", "[]", "{}")  # what exporters note that know none


class Guesses:
    """Collects guessed values, to be shown in one line with the options that change them."""

    def __init__(self, prefix: str, file_name: str) -> None:
        self.prefix, self._file_name = prefix, file_name
        self._found: dict[str, str] = {}

    def add(self, option: str, value: T) -> T:
        """Note a guessed value under the option that would set it, and return it."""
        shown = value.value if isinstance(value, Enum) else value
        if isinstance(shown, tuple):
            shown = ":".join(f"{n:g}" for n in shown)
        self._found[option] = str(shown)
        return value

    def fresh(self) -> Guesses:
        """The same for the same detector, with nothing guessed yet."""
        return Guesses(self.prefix, self._file_name)

    def take(self, other: Guesses) -> None:
        """Add what another has."""
        self._found |= other._found

    def add_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Note class names that nobody gave, and return them."""
        numbered = "class_0" if len(names) == 1 else f"class_0 to {names[-1]}"
        self.add("class-names", "COCO's 80" if names == COCO else numbered)
        return names

    def line(self) -> str | None:
        """One line for the user, or None where nothing was guessed."""
        if not self._found:
            return None
        values = ", ".join(f"{option} {value}" for option, value in self._found.items())
        option = next(iter(self._found))
        return (
            f"{self._file_name}: guessed {values} (change with --{self.prefix}{option} and so on)"
        )


def declared_names(prefix: str, source: DetectorSource, file: OnnxFile) -> tuple[str, ...] | None:
    """Class names from the user's file, else from the model's metadata (``names``), if any.

    Raises:
        ConfigError: they cannot be read.
    """
    if source.class_names is not None:
        return read_names(source.class_names)
    text = file.metadata.get("names", "")
    if text.strip() in _NO_NAMES:
        return None
    try:
        return names_from(load_yaml(text, words=True), f"the metadata of {file.path}")
    except (ConfigError, ValueError) as error:
        raise ConfigError(
            f"the class names in the metadata of {file.path} cannot be read ({error}); "
            f"give them with --{prefix}class-names"
        ) from None


def declared_size(file: OnnxFile) -> tuple[int, int] | None:
    """Height and width from Ultralytics' metadata (``imgsz``), or None."""
    noted = re.fullmatch(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]", file.metadata.get("imgsz", ""))
    return (int(noted[1]), int(noted[2])) if noted else None


def prepared_with(
    source: DetectorSource,
    file: OnnxFile,
    picture: Picture,
    size: tuple[int, int],
    guesses: Guesses,
) -> ImageSpec:
    """How a picture is prepared: as asked for, else as is usual where the file came from.

    Raises:
        InputError: an input of whole numbers is to be normalised, or a deviation is zero.
    """
    mean, std = _normalisation(source, file, picture, guesses)
    try:
        return ImageSpec(
            height=size[0],
            width=size[1],
            resize=source.resize or guesses.add("resize", picture.resize),
            color_order=source.color or guesses.add("color", picture.color),
            mean=mean,
            std=std,
        )
    except ValueError as error:
        raise InputError(f"{file.path}: {error}") from None


def _normalisation(
    source: DetectorSource, file: OnnxFile, picture: Picture, guesses: Guesses
) -> tuple[Triple, Triple]:
    """Mean and deviation; what is given alone goes with a mean of 0 or a deviation of 1."""
    if file.image.elem_type == TensorProto.UINT8:
        if (source.mean or NO_MEAN, source.std or NO_STD) != (NO_MEAN, NO_STD):
            raise InputError(
                f"{file.path} takes whole numbers from 0 to 255, which cannot be normalised; "
                "leave mean and std out"
            )
        return NO_MEAN, NO_STD
    if source.mean is not None or source.std is not None:
        return source.mean or NO_MEAN, source.std or NO_STD
    mean, std = picture.mean, picture.std
    if source.color not in (None, picture.color):
        mean, std = mean[::-1], std[::-1]
    return guesses.add("mean", mean), guesses.add("std", std)
