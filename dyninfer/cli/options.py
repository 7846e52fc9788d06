"""Options that several commands have, alone and in groups.

A command takes a dataclass of options where typer wants a parameter for each.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.runtime.engine_choice import EngineChoice

_bundle = typer.Argument(metavar="BUNDLE", help="A bundle folder, NAME.dyn.", show_default=False)
BundleArgument = Annotated[Path, _bundle]
BundleOrNone = Annotated[Path | None, _bundle]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, or cuda:0 for the first GPU.")]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="ONNX Runtime execution provider: cpu, cuda or tensorrt; the device's own if absent.",
    ),
]
SpeedOption = Annotated[
    str | None,
    typer.Option(
        "--speed",
        "-s",
        help="How fast: easy, hard, 30% (of the images hard), 12ms, 12ms@p95, 30fps, ap-0.5 "
        "(points below the last exit's AP), certified, or a threshold such as 0.42; +adaptive "
        "holds a share, a budget or a rate on the stream, +nearest takes the nearest where a "
        "budget or a rate cannot be had.",
    ),
]
PixelsOption = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Of a picture; more are not decoded.")
]
TrustedKeyOption = Annotated[
    str | None,
    typer.Option(
        "--trusted-key",
        help="A public key in PEM: refuse what its owner did not sign with **dyninfer sign**.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@dataclass(frozen=True)
class EngineOptions(EngineChoice):
    """Which engines a bundle is opened with."""

    device: Annotated[
        str | None,
        typer.Option(help="cpu, or cuda:0 for the first GPU; the backend's own if absent."),
    ] = None
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime, tensorrt or tensorrt-rtx; the first if absent.")
    ] = None
    provider: ProviderOption = None
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp16, int8, or for each stage first=int8,second=fp16: what **dyninfer build** "
            "made."
        ),
    ] = None
    trusted_key: TrustedKeyOption = None


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its groups.

    In place of every parameter that is a dataclass, typer sees the dataclass's fields, with the
    types, help texts and defaults that are written there; the command gets them as one object.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        declared, kind = parameter.annotation, inspect.Parameter.KEYWORD_ONLY
        options = [parameter]
        if isinstance(declared, type) and is_dataclass(declared):
            groups[parameter.name] = declared
            options = [*inspect.signature(declared, eval_str=True).parameters.values()]
        shown += [option.replace(kind=kind) for option in options]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    # typer reads both; neither can be declared for options that come from elsewhere
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run
