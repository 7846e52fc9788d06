"""The detectors of a cascade as their authors exported them, to compare a bundle with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import ORDINALS, DetectorPlan
from dyninfer.exporters.cascade.original import OriginalDetector
from dyninfer.exporters.cascade.reference import decode_one
from dyninfer.exporters.cascade.stage import read_plan
from dyninfer.exporters.source_stage import SourceStage
from dyninfer.types import AnyArray


@dataclass(frozen=True)
class OriginalStage:
    """The untouched file in ONNX Runtime, image by image, and its decode in NumPy."""

    plan: DetectorPlan
    original: OriginalDetector

    @property
    def has_double(self) -> bool:
        """Never: the arithmetic of an ONNX file is its own."""
        return False

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Boxes (N, A, 4) and class scores (N, A, C) for images (N, 3, H, W)."""
        (images,) = inputs
        rows = [decode_one(self.plan, self.original.run(image[None])) for image in images]
        return [np.stack([row[which] for row in rows]) for which in (0, 1)]

    def in_double(self) -> AbstractContextManager[None]:
        """Not possible; see :attr:`has_double`."""
        raise NotImplementedError("an ONNX file cannot be run in float64")


def cascade_stages(
    bundle: Bundle, checkpoints: Sequence[Path], _config: Path | None
) -> dict[str, SourceStage]:
    """Every exit's detector, by stage name; routers were trained later and have no source.

    Raises:
        BundleError: a stage does not say how its detector is decoded.
        CheckpointError: an original cannot be read or opened.
    """
    stages: dict[str, SourceStage] = {}
    for ordinal, path in zip(ORDINALS, checkpoints, strict=False):
        plan = read_plan(bundle.stage_path(ordinal))
        if plan is None:
            raise BundleError(
                f"stage {ordinal!r} of {bundle.path} does not say how its detector is decoded; "
                "export the cascade again"
            )
        stages[ordinal] = OriginalStage(plan, OriginalDetector(read_onnx(path), plan.layout))
    return stages
