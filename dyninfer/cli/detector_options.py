"""Options that detectors have, made from one table, and read in two ways.

``--first-decode nanodet`` and ``--first a.onnx,decode=nanodet`` mean the same; of a detector alone
``--decode nanodet`` and ``a.onnx,decode=nanodet``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.cli.common import parse_image_size
from dyninfer.exporters.cascade.options import (
    ONNX_OPTIONS,
    BoxFormat,
    BoxUnit,
    ClassIds,
    Decode,
    DetectorSource,
    Layout,
    Scores,
)
from dyninfer.images.spec import ColorOrder, ResizeMode

NAMED = ("first", "second", "third")
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # in RGB


@dataclass(frozen=True)
class DetectorOption:
    """An option that detectors have: ``--first-NAME``, or ``NAME=`` after the file's name.

    Of a detector alone it is ``--NAME``; ``also`` are further names. ``kind`` turns its text into
    the value; it raises ValueError where that is none. ``form`` shows what is expected, or where it
    has bars all there is to choose from: an enum's own if absent.
    """

    name: str
    help: str
    kind: Callable[[str], Any]
    form: str = ""
    also: tuple[str, ...] = ()

    def spellings(self, prefix: str = "") -> tuple[str, ...]:
        """How it is given on a command line."""
        return tuple(f"--{prefix}{name}" for name in (self.name, *self.also))

    @property
    def metavar(self) -> str:
        """What may be given."""
        if isinstance(self.kind, type) and issubclass(self.kind, Enum) and not self.form:
            return "|".join(choice.value for choice in self.kind)
        return self.form

    def parse(self, path: str, text: str) -> Any:
        """The value of an option of the detector at ``path``; wrong usage where it is none."""
        if "|" not in self.metavar or text in self.metavar.split("|"):
            try:
                return self.kind(text)
            except ValueError:
                pass
        raise typer.BadParameter(f"{self.name} of {path} is {text!r}, expected {self.metavar}")


def parse_triple(text: str) -> tuple[float, float, float]:
    """``103.5:116.3:123.7`` or ``103.5,116.3,123.7``, or one number for all three channels."""
    numbers = [float(part) for part in re.split("[:,]", text)]
    if len(numbers) not in (1, 3):
        raise ValueError(f"{len(numbers)} numbers")
    return tuple(numbers * (3 // len(numbers)))  # type: ignore[return-value]  # three by now


_NORMALISE = "(pixel - mean) / std: /255, as it is, ImageNet's."
_TRIPLE = "For each channel of the tensor, from 0 to 255; or one number for all."
SPEC = "FILE[,OPTION=VALUE...]"
"""How a detector is named on a command line."""
_TRAINED = "Of an EfficientDet checkpoint: the published configuration."
_CELL = "Of nanodet, yolox, centernet: a cell's centre, 0 or 0.5."
_FIRST = "Number of the first class in the outputs: 0, or 1."
_SIZE = ("image-size",)
_FITTED = "How a picture is fitted in."
_SIZES = "Image size, height first; several, as in 160,224,320, are branches to choose from."
DETECTOR_OPTIONS = (
    DetectorOption("decode", "What the outputs mean.", Decode),
    DetectorOption("size", "Image size, height first.", parse_image_size, "N or HxW", _SIZE),
    DetectorOption("normalise", _NORMALISE, str, "unit|none|imagenet"),
    DetectorOption("mean", _TRIPLE, parse_triple, "a:b:c"),
    DetectorOption("std", _TRIPLE, parse_triple, "a:b:c"),
    DetectorOption("layout", "Axes of the image input.", Layout),
    DetectorOption("color", "Order of the colours.", ColorOrder),
    DetectorOption("resize", _FITTED, ResizeMode, "letterbox|stretch|pad_bottom_right"),
    DetectorOption("class-names", "One name per line, or a data set's YAML.", Path, "FILE"),
    DetectorOption("class-offset", _FIRST, int, "NUMBER"),
    DetectorOption("class-ids", "Without gaps, or COCO's 91 ids.", ClassIds),
    DetectorOption("boxes", "Unit of the boxes.", BoxUnit),
    DetectorOption("box-format", "The four numbers of a box.", BoxFormat),
    DetectorOption("scores", "What scores are as given.", Scores),
    DetectorOption("cell-offset", _CELL, float, "NUMBER"),
    DetectorOption("config", _TRAINED, str, "NAME"),
)
_BY_NAME = {name: option for option in DETECTOR_OPTIONS for name in (option.name, *option.also)}


def _field_of(ordinal: str, option: DetectorOption) -> str:
    """The name of a parameter; ``ordinal`` is empty for a detector alone."""
    return f"{ordinal}_{option.name}".lstrip("_").replace("-", "_")


def _text(option: DetectorOption, *spellings: str, **more: Any) -> Any:
    """The type of a parameter that takes the text of an option."""
    kind = typer.Option(*spellings, metavar=option.metavar, help=option.help, **more)
    return Annotated[str | None, kind]


def _fields() -> list[tuple[str, Any, None]]:
    """``--first``, ``--first-decode``, ... and the same for the second and the third detector."""
    found: list[tuple[str, Any, None]] = []
    for ordinal in NAMED:
        own = typer.Option(
            f"--{ordinal}",
            metavar=SPEC,
            help=f"The {ordinal} detector, instead of its position.",
            rich_help_panel="Detectors",
        )
        found.append((ordinal, Annotated[str | None, own], None))
        for option in DETECTOR_OPTIONS:
            more = _text(
                option,
                *option.spellings(f"{ordinal}-"),
                rich_help_panel=f"The {ordinal} detector (likewise --second-..., --third-...)",
                # the first one's help stands for all: 36 options would hide the others
                hidden=ordinal != NAMED[0],
            )
            found.append((_field_of(ordinal, option), more, None))
    return found


def _fields_alone() -> list[tuple[str, Any, None]]:
    """``--decode``, ... of one detector; its size also as other exports and tools call it."""
    also = {"size": ("--imgsz",)}
    sizes = replace(_BY_NAME["size"], help=_SIZES, form="N or HxW[,...]")
    return [
        (
            _field_of("", option),
            _text(
                sizes if option.name == "size" else option,
                *option.spellings(),
                *also.get(option.name, ()),
                rich_help_panel="The detector",
            ),
            None,
        )
        for option in DETECTOR_OPTIONS
        if option.name in ONNX_OPTIONS | {"normalise"}
    ]


NamedDetectors = make_dataclass("NamedDetectors", _fields(), frozen=True)
"""The group of all these options; its values are the texts that were given."""
OneDetector = make_dataclass("OneDetector", _fields_alone(), frozen=True)
"""The same for ``export onnx``."""


def gather_sources(
    positions: Sequence[str], of_detectors: Mapping[str, str | None]
) -> list[DetectorSource]:
    """The detectors of a command line, in order.

    Raises:
        typer.BadParameter: there are fewer than two, both ways of naming them are mixed, an
            option is given twice or has a wrong value.
    """
    named = [of_detectors.get(ordinal) for ordinal in NAMED]
    given = [text for text in named if text]
    if positions and given:
        raise typer.BadParameter("give the detectors by position or with --first, not both ways")
    if given and not all(named[: len(given)]):
        raise typer.BadParameter(f"--{NAMED[named.index(None)]} is missing before later detectors")
    specs = list(positions) or given
    if len(specs) < 2:
        raise typer.BadParameter(
            "a cascade needs two detectors or more: dyninfer export cascade cheap.onnx good.onnx; "
            "for one, dyninfer export onnx good.onnx"
        )
    options = [_given(of_detectors, ordinal) for ordinal in NAMED]
    for ordinal, own in zip(NAMED[len(specs) :], options[len(specs) :], strict=True):
        if own:
            raise typer.BadParameter(f"--{ordinal}-{next(iter(own))} is given, but no --{ordinal}")
    options += [{}] * len(specs)
    return [_source(spec, own) for spec, own in zip(specs, options, strict=False)]


def _given(texts: Mapping[str, str | None], ordinal: str = "") -> dict[str, str]:
    """The options that one detector was given, by name."""
    found = {option.name: texts.get(_field_of(ordinal, option)) for option in DETECTOR_OPTIONS}
    return {name: text for name, text in found.items() if text is not None}


def one_source(
    spec: str, of_detector: Mapping[str, str | None]
) -> tuple[DetectorSource, tuple[tuple[int, int], ...]]:
    """The one detector of a command line, and its image sizes where there are several.

    Raises:
        typer.BadParameter: an option is given twice or has a wrong value.
    """
    given = _given(of_detector)
    listed = re.search(r",size=([\dxX]+(?:,[\dxX]+)+)(?=,[a-z-]+=|$)", spec)
    if listed and "size" not in given:
        spec, given["size"] = spec[: listed.start()] + spec[listed.end() :], listed[1]
    if "," not in given.get("size", ""):
        return _source(spec, given), ()
    texts = given.pop("size").split(",")
    sizes = tuple(_BY_NAME["size"].parse(spec.partition(",")[0], text.strip()) for text in texts)
    return _source(spec, given), sizes


def _source(spec: str, texts: dict[str, str]) -> DetectorSource:
    """A detector from ``a.onnx,decode=nanodet,size=224`` and the options of its own."""
    path, *pairs = re.split(r",(?=[a-z-]+=)", spec)
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in _BY_NAME:
            known = ", ".join(_BY_NAME)
            raise typer.BadParameter(f"{name}= of {path} is unknown, expected {known}")
        name = _BY_NAME[name].name
        if name in texts:
            raise typer.BadParameter(f"{name} of {path} is given twice")
        texts = {**texts, name: text}
    values = {n.replace("-", "_"): _BY_NAME[n].parse(path, text) for n, text in texts.items()}
    preset = values.pop("normalise", None)
    if preset and ("mean" in values or "std" in values):
        raise typer.BadParameter(f"{path} has normalise and mean or std; give one of them")
    if preset == "imagenet":
        in_rgb = values.setdefault("color", ColorOrder.RGB) is ColorOrder.RGB
        values["mean"], values["std"] = (c if in_rgb else c[::-1] for c in _IMAGENET)
    elif preset:
        values |= {"mean": (0.0,) * 3, "std": ((255.0 if preset == "unit" else 1.0),) * 3}
    return DetectorSource(Path(path), **values)
