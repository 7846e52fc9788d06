"""What is taken for granted of a detector where neither its file nor its user says it."""

from __future__ import annotations

import re
from enum import Enum
from typing import TypeVar

from onnx import TensorProto

from dyninfer.errors import ConfigError, InputError
from dyninfer.exporters.cascade.onnx_file import OnnxFile
from dyninfer.exporters.cascade.options import Decode, DetectorSource, Layout, Triple
from dyninfer.exporters.class_names import names_from, read_names
from dyninfer.exporters.safe_yaml import load_yaml
from dyninfer.images.spec import ColorOrder, ImageSpec, ResizeMode

T = TypeVar("T")
# per channel in the order B, G, R, as NanoDet's configurations have them
NANODET_MEAN: Triple = (103.53, 116.28, 123.675)
NANODET_STD: Triple = (57.375, 57.12, 58.395)
NO_MEAN: Triple = (0.0, 0.0, 0.0)
NO_STD: Triple = (1.0, 1.0, 1.0)


class Guesses:
    """Collects guessed values, to be shown in one line with the options that change them."""

    def __init__(self, prefix: str, file_name: str) -> None:
        self._prefix, self._file_name = prefix, file_name
        self._found: dict[str, str] = {}

    def add(self, option: str, value: T) -> T:
        """Note a guessed value under the option that would set it, and return it."""
        shown = value.value if isinstance(value, Enum) else value
        if isinstance(shown, tuple):
            shown = "no" if shown == NO_MEAN else ":".join(f"{n:g}" for n in shown)
        self._found[option] = str(shown)
        return value

    def line(self) -> str | None:
        """One line for the user, or None where nothing was guessed."""
        if not self._found:
            return None
        values = ", ".join(f"{option} {value}" for option, value in self._found.items())
        option = next(iter(self._found))
        return (
            f"{self._file_name}: guessed {values} (change with --{self._prefix}{option} and so on)"
        )


def declared_names(source: DetectorSource, file: OnnxFile) -> tuple[str, ...] | None:
    """Class names from the user's file, else from the model's metadata (``names``).

    Raises:
        ConfigError: they cannot be read.
    """
    if source.class_names is not None:
        return read_names(source.class_names)
    if "names" not in file.metadata:
        return None
    try:
        names = load_yaml(file.metadata["names"])
    except ValueError as error:
        raise ConfigError(
            f"the class names in the metadata of {file.path} cannot be read ({error}); "
            "give them in a file of your own"
        ) from None
    return names_from(names, f"the metadata of {file.path}")


def declared_size(file: OnnxFile) -> tuple[int, int] | None:
    """Height and width from Ultralytics' metadata (``imgsz``), or None."""
    noted = re.fullmatch(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]", file.metadata.get("imgsz", ""))
    return (int(noted[1]), int(noted[2])) if noted else None


def guess_image(
    source: DetectorSource,
    file: OnnxFile,
    decode: Decode,
    layout: Layout,
    size: tuple[int, int],
    guesses: Guesses,
) -> ImageSpec:
    """How a picture is prepared: as asked for, else as detectors of this kind are trained.

    NanoDet: BGR, normalised, stretched. Channels last, or whole numbers: RGB from 0 to 255,
    stretched. All others, as YOLO: RGB from 0 to 1, letterboxed.

    Raises:
        InputError: an input of whole numbers is to be normalised, or a deviation is zero.
    """
    color, resize = ColorOrder.RGB, ResizeMode.LETTERBOX
    if decode is Decode.NANODET:
        color, resize = ColorOrder.BGR, ResizeMode.STRETCH
    elif layout is Layout.NHWC:
        resize = ResizeMode.STRETCH
    mean, std = _normalisation(source, file, decode, layout, guesses)
    try:
        return ImageSpec(
            height=size[0],
            width=size[1],
            resize=source.resize or guesses.add("resize", resize),
            color_order=source.color or guesses.add("color", color),
            mean=mean,
            std=std,
        )
    except ValueError as error:
        raise InputError(f"{file.path}: {error}") from None


def _normalisation(
    source: DetectorSource, file: OnnxFile, decode: Decode, layout: Layout, guesses: Guesses
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
    mean, std = NO_MEAN, (255.0, 255.0, 255.0)
    if decode is Decode.NANODET:
        mean, std = NANODET_MEAN, NANODET_STD
        if source.color is ColorOrder.RGB:
            mean, std = mean[::-1], std[::-1]
    elif layout is Layout.NHWC:
        std = NO_STD
    return guesses.add("mean", mean), guesses.add("std", std)
