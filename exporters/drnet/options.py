"""What a user may say of a DRNet, for what its weights do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PREDICTOR_SIZE = 128


class Convention(str, Enum):
    """Where pixel i of s lies in an input of n: at (i + 0.5) n / s - 0.5, or at i n / s.

    The first is PyTorch's ``interpolate``, the second MindSpore's ``ResizeBilinear`` by default.
    """

    HALF_PIXEL = "half-pixel"
    ASYMMETRIC = "asymmetric"


class ShortcutNorm(str, Enum):
    """Which set the batch norms of projections use: always 0, as the released code, or their own.

    The released code calls them without the number of the resolution, so that their other sets were
    never trained.
    """

    INDEX0 = "index0"
    PER_RESOLUTION = "per_resolution"


@dataclass(frozen=True)
class DRNetOptions:
    """What the command line offers for this family.

    ``resolutions`` are in the order of the batch norms' sets and of the predictor's scores, None
    for the published ones; ``image_size`` is (height, width) of the crop that everything is resized
    from, and ``predictor_size`` what the predictor looks at. ``resize`` is None for PyTorch's
    convention, or MindSpore's for its own files; ``shortcut_bn`` None for what the weights tell.
    """

    resolutions: tuple[int, ...] | None = None
    image_size: tuple[int, int] | None = None
    predictor_size: int = PREDICTOR_SIZE
    resize: Convention | None = None
    shortcut_bn: ShortcutNorm | None = None
    class_names: Path | None = None
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False
