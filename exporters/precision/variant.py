"""A stage's file in another precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dyninfer.bundle.manifest import Precision


@dataclass(frozen=True)
class ConvertedStage:
    """A stage's file in the precision that was asked for.

    Attributes:
        precision: of the file.
        path: the ONNX file: the bundle's own where nothing was to be changed.
        sha256: of the file.
        kept_float: layers that stay in float32 because their quantisation cost too much.
        deviation: of the stage's outputs from float32 on calibration pictures (``deviation.py``);
            None where it was not needed to decide anything.
    """

    precision: Precision
    path: Path
    sha256: str
    kept_float: tuple[str, ...] = ()
    deviation: float | None = None
