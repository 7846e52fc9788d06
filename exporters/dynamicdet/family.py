"""DynamicDet as a family: a checkpoint becomes four stages, a cascade of two exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.exporters.dynamicdet.export import (
    FAMILY,
    DynamicDetOptions,
    export_dynamicdet,
    load_model,
)
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from dyninfer.exporters.dynamicdet.stages import IMAGES, FirstStage, build_stages
from dyninfer.exporters.family import Exported, Progress
from dyninfer.exporters.source_stage import SourceStage, TorchStage


class DynamicDet:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = FAMILY

    def export(
        self, source: Path, output: Path, options: DynamicDetOptions, progress: Progress
    ) -> Exported:
        """Export a checkpoint."""
        return Exported(
            export_dynamicdet(source, output, options, lambda stage: progress(f"exporting {stage}"))
        )

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded."""
        return _stages_of(load_model(sources[0], config), bundle.manifest)

    def fold(
        self, stages: Mapping[str, SourceStage], manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norm, branches and implicit layers go into the convolutions beside them."""
        first = stages[manifest.ways[0].body]
        assert isinstance(first, TorchStage)  # of this family's source_stages
        assert isinstance(first.module, FirstStage)
        folded = _stages_of(fold(first.module.model), manifest)
        return {name: stage for name, stage in folded.items() if name in stages}


def _stages_of(model: DynamicDetector, manifest: Manifest) -> dict[str, SourceStage]:
    spec = manifest.image_inputs[IMAGES]
    stages = build_stages(model, (spec.height, spec.width))
    return {name: TorchStage(stage) for name, stage in stages.items()}


DYNAMICDET = DynamicDet()
