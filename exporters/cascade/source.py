"""What the stages of these bundles are compared with: the files that they were made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError
from dyninfer.exporters.cascade.onnx_file import OnnxFile, in_float32, read_onnx
from dyninfer.exporters.cascade.options import DetectorPlan
from dyninfer.exporters.cascade.original import OriginalDetector, decode_one
from dyninfer.exporters.cascade.stage import read_plan
from dyninfer.exporters.efficientdet import detector as efficientdet
from dyninfer.exporters.family import SourceStage
from dyninfer.types import AnyArray


def source_stages(bundle: Bundle, sources: Sequence[Path]) -> dict[str, SourceStage]:
    """Every way's detector; ``sources`` are their files.

    Raises:
        BundleError: the bundle does not say how a detector is read.
        CheckpointError: a file cannot be read.
    """
    manifest = bundle.manifest
    stages: dict[str, SourceStage] = {}
    noted = (manifest.source, *manifest.further_sources)
    # one file at several sizes is the source of all ways
    same = len(manifest.ways) // len(sources)
    files = {
        path: read_onnx(path)
        for path, s in zip(sources, noted, strict=True)
        if s.config_file_name is None
    }
    for way, source, path in zip(manifest.ways, noted * same, [*sources] * same, strict=True):
        if source.config_file_name is not None:
            stages |= efficientdet.source_stages(bundle, way, source, path)
            continue
        with bundle.opening(way.body) as file:
            plan = read_plan(file)
        if plan is None:
            raise BundleError(
                f"stage {way.body!r} of {bundle.path} does not say how its detector is "
                "decoded; export it again"
            )
        stages[way.body] = OriginalStage(plan, _original(plan, files[path]))
    return stages


def _original(plan: DetectorPlan, file: OnnxFile) -> OriginalDetector:
    return OriginalDetector(file, plan.layout, plan.image.height * plan.image.width)


@dataclass
class OriginalStage:
    """The untouched file in ONNX Runtime, image by image, and its decode in NumPy."""

    plan: DetectorPlan
    original: OriginalDetector

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Boxes (N, A, 4) and class scores (N, A, C) for images (N, 3, H, W)."""
        (images,) = inputs
        rows = [decode_one(self.plan, self.original.run(image[None])) for image in images]
        return [np.stack([row[which] for row in rows]) for which in (0, 1)]

    def in_double(self) -> AbstractContextManager[None] | None:
        """A file with float16 in it computes in float32; of others the arithmetic is their own."""
        return self._in_float32() if self.original.file.rounded else None

    @contextlib.contextmanager
    def _in_float32(self) -> Iterator[None]:
        own = self.original
        self.original = _original(self.plan, in_float32(own.file))
        try:
            yield
        finally:
            self.original = own
