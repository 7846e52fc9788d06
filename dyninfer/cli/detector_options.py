"""Options that every detector of a cascade has, made from one table, and read in two ways.

``--first-decode nanodet`` and ``--first a.onnx,decode=nanodet`` mean the same.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from dyninfer.cli.common import parse_image_size

if TYPE_CHECKING:
    from dyninfer.exporters.cascade.options import DetectorSource

NAMED = ("first", "second", "third")
NORMALISATIONS = ("unit", "none", "imagenet")


@dataclass(frozen=True)
class DetectorOption:
    """An option that every detector has: ``--first-NAME``, or ``NAME=`` after the file's name.

    ``parse`` turns its text into the value; it raises ValueError where that is none.
    """

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any]


def parse_triple(text: str) -> tuple[float, float, float]:
    """``103.5:116.3:123.7`` or ``103.5,116.3,123.7``, or one number for all three channels."""
    numbers = [float(part) for part in re.split("[:,]", text)]
    if len(numbers) not in (1, 3):
        raise ValueError(f"{len(numbers)} numbers")
    return tuple(numbers * (3 // len(numbers)))  # type: ignore[return-value]  # three by now


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of the words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


DETECTOR_OPTIONS = tuple(
    DetectorOption(name, "|".join(choices), help_, one_of(*choices))
    if choices
    else DetectorOption(name, metavar, help_, parse)
    for name, help_, choices, metavar, parse in (
        (
            "decode",
            "What the outputs mean.",
            ("yolov5", "yolov8", "yolo-end2end", "nanodet", "detections", "boxes-scores"),
            "",
            str,
        ),
        ("size", "Image size, height first.", (), "N or HxW", parse_image_size),
        ("normalise", "(pixel - mean) / std: /255, as it is, ImageNet's.", NORMALISATIONS, "", str),
        ("mean", "In tensor order, 0 to 255; or one number.", (), "a:b:c", parse_triple),
        ("std", "In tensor order, 0 to 255; or one number.", (), "a:b:c", parse_triple),
        ("layout", "Axes of the image input.", ("nchw", "nhwc"), "", str),
        ("color", "Order of the colours.", ("rgb", "bgr"), "", str),
        (
            "resize",
            "How a picture is fitted in.",
            ("letterbox", "stretch", "pad_bottom_right"),
            "",
            str,
        ),
        ("class-names", "One name per line, or a data set's YAML.", (), "FILE", Path),
        ("boxes", "Unit of the boxes.", ("pixels", "normalised"), "", str),
        (
            "box-format",
            "Of boxes-scores, and of yolo-end2end with four outputs.",
            ("xyxy", "cxcywh", "xywh", "yxyx"),
            "",
            str,
        ),
        ("cell-offset", "Of nanodet: 0.5; 0 for NanoDet-Plus.", (), "NUMBER", float),
    )
)
_BY_NAME: Mapping[str, DetectorOption] = {option.name: option for option in DETECTOR_OPTIONS}


def _detector_parameters() -> list[inspect.Parameter]:
    """``--first``, ``--first-decode``, ... and the same for the second and the third detector."""
    parameters = []
    for ordinal in NAMED:
        panel = f"The {ordinal} detector"
        # the first one's help stands for all: 36 options would hide the others
        hidden = ordinal != NAMED[0]
        own = typer.Option(
            f"--{ordinal}",
            metavar="ONNX[,OPTION=VALUE...]",
            help=f"The {ordinal} detector, in place of a position.",
            rich_help_panel="Detectors",
        )
        parameters.append(_parameter(ordinal, own))
        for option in DETECTOR_OPTIONS:
            more = typer.Option(
                f"--{ordinal}-{option.name}",
                metavar=escape(option.metavar),
                help=f"{option.help}",
                rich_help_panel=f"{panel} (likewise --second-..., --third-...)",
                hidden=hidden,
            )
            parameters.append(_parameter(f"{ordinal}_{option.name.replace('-', '_')}", more))
    return parameters


def _parameter(name: str, option: Any) -> inspect.Parameter:
    annotation = Annotated[str | None, option]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def with_detector_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of three detectors in place of its ``**of_detectors``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = [*own, *_detector_parameters()]
    # typer reads both; neither can be declared for options that are made from a table
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


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
            "a cascade needs two detectors or more: dyninfer export cascade cheap.onnx good.onnx"
        )
    options: list[dict[str, str]] = []
    for ordinal in NAMED:
        texts = {
            o.name: of_detectors.get(f"{ordinal}_{o.name.replace('-', '_')}")
            for o in DETECTOR_OPTIONS
        }
        options.append({name: text for name, text in texts.items() if text is not None})
    for ordinal, own in zip(NAMED[len(specs) :], options[len(specs) :], strict=True):
        if own:
            raise typer.BadParameter(f"--{ordinal}-{next(iter(own))} is given, but no --{ordinal}")
    options += [{}] * len(specs)
    return [_source(spec, own) for spec, own in zip(specs, options, strict=False)]


def _source(spec: str, options: Mapping[str, str]) -> DetectorSource:
    """A detector from ``a.onnx,decode=nanodet,size=224`` and the options of its own."""
    from dyninfer.exporters.cascade.options import (
        BoxFormat,
        BoxUnit,
        Decode,
        DetectorSource,
        Layout,
    )
    from dyninfer.images.spec import ColorOrder, ResizeMode

    path, *pairs = re.split(r",(?=[a-z-]+=)", spec)
    texts = dict(options)
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name in texts:
            raise typer.BadParameter(f"{name} of {path} is given twice")
        texts[name] = text
    values = {name: _parse(path, name, text) for name, text in texts.items()}
    mean, std = _normalisation(path, values)
    as_type: dict[str, Callable[[Any], Any]] = {
        "decode": Decode,
        "layout": Layout,
        "color": ColorOrder,
        "resize": ResizeMode,
        "boxes": BoxUnit,
        "box-format": BoxFormat,
    }
    plain = {n: as_type.get(n, lambda v: v)(value) for n, value in values.items()}
    fields = {name.replace("-", "_"): value for name, value in plain.items()}
    return DetectorSource(Path(path), **{**fields, "mean": mean, "std": std})


def _parse(path: str, name: str, text: str) -> Any:
    if name not in _BY_NAME:
        raise typer.BadParameter(f"{name}= of {path} is unknown, expected {', '.join(_BY_NAME)}")
    option = _BY_NAME[name]
    try:
        return option.parse(text)
    except ValueError:
        raise typer.BadParameter(
            f"{name} of {path} is {text!r}, expected {option.metavar}"
        ) from None


def _normalisation(path: str, values: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and deviation, taken out of ``values``, from the numbers or from a preset's name."""
    preset = values.pop("normalise", None)
    mean, std = values.pop("mean", None), values.pop("std", None)
    if preset is None:
        return mean, std
    if mean is not None or std is not None:
        raise typer.BadParameter(f"{path} has normalise and mean or std; give one of them")
    if preset != "imagenet":
        return (0.0,) * 3, ((255.0 if preset == "unit" else 1.0),) * 3
    color = values.setdefault("color", "rgb")
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return (mean, std) if color == "rgb" else (mean[::-1], std[::-1])
