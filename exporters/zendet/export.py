"""ZenDet as a family: a structure text, and weights of it or none, become a bundle of one stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Setting, Source, StaticRoute, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, ConfigError, ExportError, InputError
from dyninfer.exporters.candidate_rows import CANDIDATES, candidates_of
from dyninfer.exporters.class_names import COCO, class_names_for, read_names
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.zendet.backbone import Backbone, fold, random_backbone
from dyninfer.exporters.zendet.checkpoint import load_model
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.stages import BODY, IMAGES, AnyStage, Model, build_stage
from dyninfer.images.spec import MAX_SIDE, ImageSpec, ResizeMode
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import Postprocess
from dyninfer.search.cost import check_size, cost_of
from dyninfer.search.structure import Structure, parse_structure, read_structure

USE = Postprocess(iou=0.6, max_detections=100)
EVALUATION = Postprocess(confidence=0.05, iou=0.6, max_detections=100, several_labels=True)
BACKBONE_SIZE, DETECTOR_SIZE = (640, 640), (800, 1344)
"""Of images where none was asked for; a detector's is the published 800x1333, padded."""
_SEED = 0  # of random weights
_MOST_PARAMETERS = 500_000_000  # an ONNX file holds 2 GiB
_STRUCTURE, _WEIGHTS, _RANDOM = "structure", "weights", "random"


@dataclass(frozen=True)
class ZenDetOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width), None for the usual one; ``candidates`` are how many of the
    surest boxes a detector gives on, None for all.
    """

    structure: Path
    image_size: tuple[int, int] | None = None
    class_names: Path | None = None
    candidates: int | None = CANDIDATES
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


class ZenDet:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = "zendet"

    def export(
        self, source: Path | None, output: Path, options: ZenDetOptions, progress: Progress
    ) -> Exported:
        """Export a checkpoint, or with None the structure's backbone with random weights."""
        check_target(output, overwrite=options.overwrite)
        structure = read_structure(options.structure)
        if options.image_size is not None:
            check_size(options.image_size)
        _check_parameters(structure)
        model, notes = _model(source, structure)
        names, note = _class_names(model, options.class_names)
        size = options.image_size or _usual_size(model)
        if max(size) > MAX_SIDE:
            raise InputError(
                f"the image size is {size[0]}x{size[1]}, expected sides up to {MAX_SIDE} pixels"
            )
        detects = isinstance(model, Detector)

        def write(folder: Path) -> Manifest:
            progress(f"exporting {BODY}")
            stage = build_stage(model, size, len(names), options.candidates)
            images = {IMAGES: torch.zeros(EXAMPLE_BATCH, 3, *size)}
            parameters = sum(parameter.numel() for parameter in model.parameters())
            entry, _ = write_stage(
                stage.of(fold(model)).eval(),
                images,
                stage.outputs,
                parameters,
                folder,
                f"onnx/{BODY}.onnx",
            )
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.DETECT if detects else Task.FEATURES,
                class_names=names,
                route=StaticRoute(body=BODY),
                stages={BODY: entry},
                image_inputs={IMAGES: _image_spec(size)},
                postprocess=USE if detects else None,
                evaluation=EVALUATION if detects else None,
                source=_source(source or options.structure, options.licence),
                settings=_settings(structure, source),
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        return Exported(made, (*notes, f"backbone: {structure}", *note))

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded, with the same decode."""
        manifest = bundle.manifest
        try:
            structure = parse_structure(str(manifest.settings[_STRUCTURE]))
        except (KeyError, ConfigError):
            raise BundleError(
                f"{bundle.path} does not say what structure its backbone has; export it again"
            ) from None
        drawn = manifest.settings.get(_WEIGHTS) == _RANDOM
        model, _ = _model(None if drawn else sources[0], structure)
        spec = manifest.image_inputs[IMAGES]
        detects = manifest.task is Task.DETECT
        kept = candidates_of(manifest.stages[BODY]) if detects else None
        if detects != isinstance(model, Detector):
            raise BundleError(f"{bundle.path} is not of the task of its source; export it again")
        size = (spec.height, spec.width)
        return {BODY: TorchStage(build_stage(model, size, len(manifest.class_names), kept))}

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms go into the convolutions before them."""
        folded = {}
        for name, stage in stages.items():
            assert isinstance(stage, TorchStage)  # of this family's source_stages
            assert isinstance(stage.module, AnyStage)
            folded[name] = TorchStage(stage.module.of(fold(stage.module.model)).eval())
        return folded


ZENDET = ZenDet()


def _model(source: Path | None, structure: Structure) -> tuple[Model, tuple[str, ...]]:
    if source is not None:
        return load_model(source, structure)
    note = "weights: random, for work on latency; what it computes means nothing"
    return random_backbone(structure, _SEED), (note,)


def _check_parameters(structure: Structure) -> None:
    parameters = cost_of(structure, BACKBONE_SIZE).parameters
    if parameters > _MOST_PARAMETERS:
        raise ExportError(
            f"the structure has {parameters:,} parameters, expected at most {_MOST_PARAMETERS:,}: "
            "an ONNX file holds 2 GiB"
        )


def _usual_size(model: Model) -> tuple[int, int]:
    return BACKBONE_SIZE if isinstance(model, Backbone) else DETECTOR_SIZE


def _class_names(model: Model, path: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns that are classes, and a line on what was guessed.

    A head that was trained as the published ones has one column more than classes, which means
    nothing: 81 for COCO.

    Raises:
        ConfigError: the file cannot be read, holds another number of names, or names the classes
            of a model that has none.
    """
    if not isinstance(model, Detector):
        if path is not None:
            raise ConfigError("a backbone has no classes; leave the class names out")
        return (), ()
    columns = model.bbox_head.shape.columns
    if path is not None:
        names = read_names(path)
        if len(names) not in (columns - 1, columns) or not names:
            raise ConfigError(
                f"{path} holds {counted(len(names), 'class name')}, but the head has {columns} "
                f"columns: expected {columns} names, or {columns - 1} if the last is of no class"
            )
        return names, ()
    if columns == len(COCO) + 1:
        return COCO, (f"columns: {columns}, of which the last is of no class and left out",)
    guess = f"columns: {columns}, all taken for classes; where the last is of no class, give names"
    names = class_names_for(columns, None)
    return names, () if columns == len(COCO) else (guess,)


def _image_spec(size: tuple[int, int]) -> ImageSpec:
    """One scale, the picture at the top left of a mean colour, whose normalised value is all but 0.

    As mmdetection prepares it: it pads with zeros after normalising.
    """
    return ImageSpec(
        *size,
        resize=ResizeMode.PAD_BOTTOM_RIGHT,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        pad_value=(124, 116, 104),
    )


def _source(path: Path, licence: str | None) -> Source:
    return Source(file_name=path.name, sha256=file_sha256(path), licence=licence)


def _settings(structure: Structure, source: Path | None) -> dict[str, Setting]:
    """What builds the source model again."""
    text = structure.text.strip()
    return {_STRUCTURE: text} if source else {_STRUCTURE: text, _WEIGHTS: _RANDOM}
