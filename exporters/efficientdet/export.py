"""EfficientDet as a family: a checkpoint becomes a bundle of one stage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Source, StaticRoute, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, ConfigError, InputError
from dyninfer.exporters.class_names import COCO, COCO_IDS, class_names_for, read_names
from dyninfer.exporters.efficientdet.anchors import make_anchors
from dyninfer.exporters.efficientdet.config import PUBLISHED, Published, choose
from dyninfer.exporters.efficientdet.fold import fold
from dyninfer.exporters.efficientdet.model import EfficientDet, model_from_state
from dyninfer.exporters.efficientdet.stages import BODY, IMAGES, BodyStage, Decode
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.weights import Naming, find_weights
from dyninfer.images.spec import MAX_SIDE
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import Postprocess

CANDIDATES = 1000
USE = Postprocess(iou=0.5, max_detections=100)
EVALUATION = Postprocess(confidence=0.001, iou=0.5, max_detections=100, several_labels=True)
_NAMING = Naming(
    family="EfficientDet",
    first="backbone.conv_stem.",
    own=re.compile(r"((?:[^.]+\.)*?)backbone\.conv_stem\.weight"),
    foreign=r"(.*\.)?anchors\.boxes",  # of benches, which are models with their post-processing
)


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
        weights = find_weights(source, _NAMING)
        model = model_from_state(weights.state)
        chosen, note = choose(model.structure, source, options.config, weights.arch)
        size = options.image_size or (chosen.scaled.image_size,) * 2
        if max(size) > MAX_SIDE:
            raise InputError(
                f"the image size is {size[0]}x{size[1]}, expected sides up to {MAX_SIDE} pixels"
            )
        names = _class_names(model.structure.classes, options.class_names)

        def write(folder: Path) -> Manifest:
            progress(f"exporting {BODY}")
            candidates = options.candidates
            stage = _stage(model, chosen, size, len(names), candidates, folded=True)
            images = {IMAGES: torch.zeros(EXAMPLE_BATCH, 3, *size)}
            parameters = sum(p.numel() for p in model.parameters())
            file = f"onnx/{BODY}.onnx"
            entry, _ = write_stage(stage, images, stage.outputs, parameters, folder, file)
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.DETECT,
                class_names=names,
                route=StaticRoute(body=BODY),
                stages={BODY: entry},
                image_inputs={IMAGES: chosen.image(size)},
                postprocess=USE,
                evaluation=EVALUATION,
                source=Source(
                    file_name=source.name,
                    sha256=file_sha256(source),
                    licence=options.licence,
                    config_file_name=chosen.name,
                ),
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        return Exported(made, (*weights.notes, note))

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded, with the same decode."""
        manifest = bundle.manifest
        name, spec = manifest.source.config_file_name, manifest.image_inputs[IMAGES]
        if name is None or name not in PUBLISHED:
            raise BundleError(
                f"{bundle.path} names the configuration {name!r}, which is none of the published; "
                "export it again"
            )
        model = load_model(sources[0])
        kept = next(o for o in manifest.stages[BODY].outputs if o.name == "boxes_xyxy").shape[1]
        stage = _stage(
            model, PUBLISHED[name], (spec.height, spec.width), len(manifest.class_names), int(kept)
        )
        return {BODY: TorchStage(stage)}

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms and fusion weights go into the convolutions beside them."""
        stage = stages[BODY]
        assert isinstance(stage, TorchStage)  # of this family's source_stages
        assert isinstance(stage.module, BodyStage)
        assert isinstance(stage.module.model, EfficientDet)
        return {BODY: TorchStage(BodyStage(fold(stage.module.model), stage.module.decode))}


EFFICIENTDET = EfficientDetFamily()


def load_model(checkpoint: Path) -> EfficientDet:
    """The source model of a checkpoint, unfolded, in float32.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are of no EfficientDet.
    """
    return model_from_state(find_weights(checkpoint, _NAMING).state)


def _stage(
    model: EfficientDet,
    published: Published,
    size: tuple[int, int],
    names: int,
    candidates: int | None,
    *,
    folded: bool = False,
) -> BodyStage:
    """The stage of a bundle of ``names`` classes, ready to be run or exported."""
    structure = model.structure
    anchors = make_anchors(size, structure.levels, published.anchor_scale)
    # the ids of COCO's classes are numbers from 1 to 90 with gaps
    columns = None if names == structure.classes else [number - 1 for number in COCO_IDS]
    decode = Decode(anchors, candidates or len(anchors), columns)
    return BodyStage(fold(model) if folded else model, decode).eval()


def _class_names(classes: int, path: Path | None) -> tuple[str, ...]:
    """A user's names, COCO's for its 90 columns, or numbers.

    Raises:
        ConfigError: the file cannot be read or holds another number of names.
    """
    if classes != COCO_IDS[-1]:
        return class_names_for(classes, path)
    names = COCO if path is None else read_names(path)
    if len(names) not in (len(COCO), classes):
        raise ConfigError(
            f"{path} holds {counted(len(names), 'class name')}, but the model has {classes} "
            f"columns: expected {classes}, or {len(COCO)} for COCO's classes"
        )
    return names
