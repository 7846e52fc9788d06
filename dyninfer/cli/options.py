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

_bundle = typer.Argument(
    metavar="BUNDLE",
    help="A bundle folder, NAME.dyn, or a model of **dyninfer models**, such as everyday.",
    show_default=False,
)
BundleArgument = Annotated[Path, _bundle]
BundleOrNone = Annotated[Path | None, _bundle]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, or cuda:0 for the first GPU.")]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="ONNX Runtime execution provider: cpu, cuda or tensorrt. Default: the one for the "
        "device.",
    ),
]
SpeedOption = Annotated[
    str | None,
    typer.Option(
        "--speed",
        "-s",
        help="How fast: easy, hard, 30% (share of images that take the last exit), 12ms, 12ms@p95, "
        "30fps, 2.5GMACs, ap-0.5 (points below the last exit's AP), certified, or a threshold such "
        "as 0.42; of a chooser also chosen, or bias=0.5 (more is cheaper). With +adaptive a share, "
        "a budget or a rate is kept as the pictures change; with +nearest a budget or a rate that "
        "is impossible is met as nearly as possible; with +previous a video's frame is decided by "
        "the frame before it.",
    ),
]
PixelsOption = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Refuse pictures with more pixels than this.")
]
TrustedKeyOption = Annotated[
    str | None,
    typer.Option(
        "--trusted-key",
        help="Public key (PEM): refuse anything that its owner has not signed with **dyninfer "
        "sign**.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@dataclass(frozen=True)
class EngineOptions(EngineChoice):
    """Which engines a bundle is opened with."""

    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, or cuda:0 for the first GPU. Default: the device that the backend needs."
        ),
    ] = None
    backend: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime, openvino, tensorrt, tensorrt-rtx, or one for each stage, such as "
            "first=onnxruntime,second=openvino; auto for what **dyninfer build** has measured and "
            "found to be fastest here. Default: onnxruntime."
        ),
    ] = None
    provider: ProviderOption = None
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp16 or int8, made by **dyninfer build**; bf16 with openvino; or one for each "
            "stage, such as first=int8,second=fp16. Default: as exported."
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Threads of each stage on a CPU; 1 keeps a call to one core. Default: one on "
            "every core.",
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
