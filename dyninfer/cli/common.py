"""What several commands share: consoles, pictures that are named, checks, and warnings."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dyninfer.benchmarks.report.terminal import DescriptionColumn, Terminal, prints_unicode
from dyninfer.bundle.manifest import Manifest
from dyninfer.demo import ASSETS
from dyninfer.errors import DyninferError, InputError, PolicyError
from dyninfer.images.folders import find_images
from dyninfer.images.named import named_pictures
from dyninfer.plain_text import counted, one_line, plain_json
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Policy
from dyninfer.routing.speed import parse_speed

stdout = Terminal()
stderr = Terminal(stderr=True)
_TIME = re.compile(r"(\d{1,9}\.?\d{0,9})\s*(ms|s|)", re.IGNORECASE | re.ASCII)


def progress_bar(*, remaining: bool = False) -> Progress:
    """A progress bar on stderr, so that stdout stays clean for results; none in a log file.

    It shows the time so far, or with ``remaining`` an estimate of what is left.
    """
    left = (TextColumn("left"), TimeRemainingColumn(compact=True))
    return Progress(
        SpinnerColumn(),
        DescriptionColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *(left if remaining else (TimeElapsedColumn(),)),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # or results would go where the bar is
    )


def flipped(flips: int, decisions: int, images: int) -> str:
    """How many routing decisions differ: one of every image, at every threshold of an easiness."""
    at, odd = divmod(decisions, max(images, 1))
    each = f", {counted(images, 'image')} at {at} thresholds" if at > 1 and not odd else ""
    return f"{flips} of {decisions} routing decisions flip{each}"


def milliseconds(text: str) -> float | None:
    """``8ms``, ``0.008s`` or ``8`` -> 8.0; None where it is no time."""
    match = _TIME.fullmatch(text.strip())
    return float(match[1]) * (1e3 if match[2].lower() == "s" else 1) if match else None


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
    try:
        return parse_speed(text)
    except PolicyError as error:
        raise typer.BadParameter(str(error)) from None


def expand_sources(sources: Sequence[str | Path]) -> list[Path]:
    """All pictures that are meant; see :func:`dyninfer.images.named.named_pictures`."""
    return named_pictures(sources, warn)


def built_in_photos() -> list[Path]:
    """The photographs that ship with the package."""
    return find_images(ASSETS / "photos")


def check_output_file(path: Path, remedy: str = "choose another place") -> None:
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
        raise InputError(f"{path} cannot be written: {folder} is read-only; {remedy}")


def warn(message: str | DyninferError) -> None:
    """One line on stderr about something that was skipped."""
    stderr.print(f"warning: {one_line(str(message))}")


def warn_if_untrained(manifest: Manifest) -> None:
    """Say of a bundle for work on latency that what it finds means nothing."""
    if manifest.random_weights:
        warn(f"the weights of {manifest.name} are random: what it finds means nothing")


def print_json(data: Any) -> None:
    """Plain values as JSON on stdout, without colours; NaN and infinity, which it lacks, as null.

    In another encoding than UTF-8 it would not be JSON, so there it is written in ASCII.
    """
    text = json.dumps(_finite(data), indent=2, ensure_ascii=not prints_unicode(), allow_nan=False)
    print_document(plain_json(text))


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_document(text: str) -> None:
    """A document of many lines, plain by its own rules, on stdout: JSON or Markdown."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
