"""ONNX detectors as a family: they become the exits of one cascade, as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import BundleError
from dyninfer.exporters.cascade.export import FAMILY, CascadeOptions, export_cascade
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import ORDINALS, DetectorPlan, DetectorSource
from dyninfer.exporters.cascade.original import OriginalDetector
from dyninfer.exporters.cascade.reference import decode_one
from dyninfer.exporters.cascade.stage import read_plan
from dyninfer.exporters.family import Exported, Progress
from dyninfer.exporters.source_stage import SourceStage
from dyninfer.types import AnyArray


class Cascade:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = FAMILY

    def export(
        self,
        source: Sequence[DetectorSource],
        output: Path,
        options: CascadeOptions,
        progress: Progress,
    ) -> Exported:
        """Chain detectors, the cheapest first."""
        return export_cascade(source, output, options, progress)

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """Every exit's detector; routers were trained later and have no source."""
        stages: dict[str, SourceStage] = {}
        for ordinal, path in zip(ORDINALS, sources, strict=False):
            plan = read_plan(bundle.stage_path(ordinal))
            if plan is None:
                raise BundleError(
                    f"stage {ordinal!r} of {bundle.path} does not say how its detector is decoded; "
                    "export the cascade again"
                )
            stages[ordinal] = OriginalStage(plan, OriginalDetector(read_onnx(path), plan.layout))
        return stages

    def fold(self, _stages: Mapping[str, SourceStage], _manifest: Manifest) -> None:
        """Nothing: a file is run as it comes."""


@dataclass(frozen=True)
class OriginalStage:
    """The untouched file in ONNX Runtime, image by image, and its decode in NumPy."""

    plan: DetectorPlan
    original: OriginalDetector

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Boxes (N, A, 4) and class scores (N, A, C) for images (N, 3, H, W)."""
        (images,) = inputs
        rows = [decode_one(self.plan, self.original.run(image[None])) for image in images]
        return [np.stack([row[which] for row in rows]) for which in (0, 1)]

    def in_double(self) -> None:
        """Not possible: the arithmetic of an ONNX file is its own."""


CASCADE = Cascade()
