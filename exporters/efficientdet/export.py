"""EfficientDet as a family: a checkpoint becomes a bundle of one stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import Manifest, StaticRoute, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.exporters.candidate_rows import CANDIDATES
from dyninfer.exporters.efficientdet.detector import plan_efficientdet, source_stages
from dyninfer.exporters.efficientdet.stages import BODY, IMAGES, fold_stages
from dyninfer.exporters.family import Exported, Progress, SourceStage
from dyninfer.results.postprocess import Postprocess

USE = Postprocess(iou=0.5, max_detections=100)
EVALUATION = Postprocess(confidence=0.001, iou=0.5, max_detections=100, several_labels=True)


@dataclass(frozen=True)
class EfficientDetOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width), None for the configuration's; ``config`` names a published
    configuration, None for what the checkpoint tells; ``candidates`` are how many anchors of the
    largest logits are decoded, None for all.
    """

    image_size: tuple[int, int] | None = None
    class_names: Path | None = None
    config: str | None = None
    candidates: int | None = CANDIDATES
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


class EfficientDetFamily:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = "efficientdet"

    def export(
        self, source: Path, output: Path, options: EfficientDetOptions, progress: Progress
    ) -> Exported:
        """Export a checkpoint."""
        check_target(output, overwrite=options.overwrite)
        detector = plan_efficientdet(
            source, options.image_size, options.class_names, options.config
        )

        def write(folder: Path) -> Manifest:
            progress(f"exporting {BODY}")
            candidates = options.candidates
            stages = detector.write(folder, BODY, IMAGES, detector.columns, candidates)
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.DETECT,
                class_names=detector.class_names,
                route=StaticRoute(body=BODY),
                stages=stages,
                image_inputs={IMAGES: detector.image},
                postprocess=USE,
                evaluation=EVALUATION,
                source=detector.source(options.licence),
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        return Exported(made, detector.notes)

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded, with the same decode."""
        (way,) = bundle.manifest.ways
        return source_stages(bundle, way, bundle.manifest.source, sources[0])

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms and fusion weights go into the convolutions beside them."""
        return fold_stages(stages)


EFFICIENTDET = EfficientDetFamily()
