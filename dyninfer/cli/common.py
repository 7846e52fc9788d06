"""What several commands share: consoles, option types, opening a bundle."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from dyninfer.errors import DyninferError, InputError, PolicyError

if TYPE_CHECKING:
    from dyninfer.routing.goals import Goal
    from dyninfer.routing.policy import Policy

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, NAME.dyn.", show_default=False)
]
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
        "holds a share, a budget or a rate on the stream.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def progress_bar(console: Console = stderr) -> Progress:
    """A progress bar on stderr, so that stdout stays clean for results; none in a log file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """``640`` -> (640, 640); ``384x640`` -> (384, 640), height first.

    Raises:
        typer.BadParameter: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})(?:[xX,](\d{1,9}))?", text.strip())
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is not N or HxW, for example 640 or 384x640 (height first)"
        )
    return int(match[1]), int(match[2] or match[1])


def read_speed(text: str) -> Policy | Goal:
    """What ``--speed`` asks for.

    Raises:
        typer.BadParameter: it is none of the forms; the message lists them.
    """
    from dyninfer.routing.speed import parse_speed

    try:
        return parse_speed(text)
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from None


def check_output_file(path: Path) -> None:
    """Say before a long measurement, not after, that its result could not be written.

    Raises:
        InputError: the folder is missing or cannot be written, or ``path`` is there and no file:
            a folder, or a device or pipe, which a file written in one step would replace.
    """
    folder = path.parent
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, expected the name of a file to write")
    if not folder.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path} cannot be written: {folder} is read-only; choose another place")


def warn(message: str | DyninferError) -> None:
    """One line on stderr about something that was skipped."""
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def readable(count: float) -> str:
    """A large number with a unit prefix: 16672736 -> 16.7 M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{f'{count / limit:#.3g}'.rstrip('.')} {unit}"
    return f"{count:.0f}"
