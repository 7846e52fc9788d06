"""What ``dyninfer build`` was asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import typer

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class BackendChoice(str, Enum):
    """Backends by the names that users know."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Request:
    """The options of one call, read but not yet compared with bundle and machine."""

    path: Path
    backend: BackendChoice
    precision: str | None
    devices: str | None
    batch: str
    workspace_bytes: int | None
    timing_cache: Path | None
    version_compatible: bool
    hardware_compatible: bool
    images: tuple[Path, ...]
    annotations: Path | None
    method: str
    device: str
    force: bool


def parse_bytes(text: str) -> int:
    """``512MB``, ``2G`` or ``1073741824`` -> bytes, in powers of 1024.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is no size, expected for example 512MB or 2GB")
    return size
