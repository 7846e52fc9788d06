"""ZenDet as a family: a structure text, and weights of it or none, become a bundle of one stage.

Two structures become a cascade of four, with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import (
    RANDOM,
    WEIGHTS,
    CascadeRoute,
    Exit,
    Manifest,
    Setting,
    Source,
    Stage,
    StaticRoute,
    Task,
)
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, ConfigError, ExportError, InputError
from dyninfer.exporters.candidate_rows import CANDIDATES, candidates_of
from dyninfer.exporters.class_names import COCO, class_names_for, read_names
from dyninfer.exporters.dynamicdet.stages import ModelStage
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.zendet.backbone import Backbone, fold, random_backbone
from dyninfer.exporters.zendet.cascade import FIRST, HEAD, ROUTER, SECOND, random_cascade
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
_STRUCTURE, _SECOND = "structure", "second_structure"
_DRAWN: dict[str, Setting] = {WEIGHTS: RANDOM}
_NOTE = "weights: random, for work on latency; what it computes means nothing"


@dataclass(frozen=True)
class ZenDetOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width), None for the usual one; ``candidates`` are how many of the
    surest boxes a detector gives on, None for all. ``second_structure`` makes a cascade.
    """

    structure: Path
    second_structure: Path | None = None
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
        """Export a checkpoint, or with None random weights of a backbone or a cascade of two.

        Raises:
            DyninferError: a subclass that names the cause; nothing is left on disk.
        """
        check_target(output, overwrite=options.overwrite)
        if options.image_size is not None:
            check_size(options.image_size)
        if options.second_structure is None:
            plan = _plan_one(source, options)
        else:
            plan = _plan_cascade(source, options, options.second_structure)

        def write(folder: Path) -> Manifest:
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.DETECT if plan.detects else Task.FEATURES,
                class_names=plan.class_names,
                route=plan.route,
                stages=_write_stages(plan, folder, progress),
                image_inputs={IMAGES: image_spec(plan.image_size)},
                postprocess=USE if plan.detects else None,
                evaluation=EVALUATION if plan.detects else None,
                source=_source(plan.sources[0], options.licence),
                further_sources=tuple(_source(s, options.licence) for s in plan.sources[1:]),
                settings=plan.settings,
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        return Exported(made, plan.notes)

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, or the weights drawn again; unfolded, the same decode."""
        manifest = bundle.manifest
        spec, detects = manifest.image_inputs[IMAGES], manifest.task is Task.DETECT
        final = manifest.stages[manifest.ways[0].final]
        kept = candidates_of(final) if detects else None
        shape = (spec.height, spec.width), len(manifest.class_names), kept
        structure = _structure_of(bundle, _STRUCTURE)
        if _SECOND in manifest.settings:
            pair = structure, _structure_of(bundle, _SECOND)
            cascade = random_cascade(pair, *shape, _SEED)
            return {name: TorchStage(stage) for name, stage in cascade.items()}
        model, _ = _model(None if manifest.random_weights else sources[0], structure)
        if detects != isinstance(model, Detector):
            raise BundleError(f"{bundle.path} is not of the task of its source; export it again")
        return {BODY: TorchStage(build_stage(model, *shape))}

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms go into the convolutions before them."""
        folded = {}
        for name, stage in stages.items():
            assert isinstance(stage, TorchStage)  # of this family's source_stages
            folded[name] = TorchStage(fold(stage.module).eval())
        return folded


ZENDET = ZenDet()


@dataclass(frozen=True)
class _Plan:
    """What a bundle is made of; stages are unfolded, by name, in the order they run."""

    image_size: tuple[int, int]
    stages: Mapping[str, AnyStage | ModelStage]
    route: StaticRoute | CascadeRoute
    class_names: tuple[str, ...]
    detects: bool
    sources: tuple[Path, ...]
    settings: dict[str, Setting]
    notes: tuple[str, ...]


def _plan_one(source: Path | None, options: ZenDetOptions) -> _Plan:
    """A backbone, or a detector on it."""
    structure = read_structure(options.structure)
    _check_parameters(structure)
    model, notes = _model(source, structure)
    names, note = class_names_of(model, options.class_names)
    size = _size(options, BACKBONE_SIZE if isinstance(model, Backbone) else DETECTOR_SIZE)
    settings: dict[str, Setting] = {_STRUCTURE: structure.text.strip()}
    return _Plan(
        size,
        {BODY: build_stage(model, size, len(names), options.candidates)},
        StaticRoute(body=BODY),
        names,
        isinstance(model, Detector),
        (source or options.structure,),
        settings if source else settings | _DRAWN,
        (*notes, f"backbone: {structure}", *note),
    )


def _plan_cascade(source: Path | None, options: ZenDetOptions, second: Path) -> _Plan:
    """Two backbones, a head on each, and a router between them.

    Raises:
        InputError: there is a checkpoint, which nobody could have trained.
    """
    if source is not None:
        raise InputError(
            f"{source} and a second structure were given, but a cascade of two structures has "
            "random weights, for work on latency; leave out one of them"
        )
    paths = options.structure, second
    structures = read_structure(options.structure), read_structure(second)
    for structure in structures:
        _check_parameters(structure)
    names = COCO if options.class_names is None else read_names(options.class_names)
    if not names:
        raise ConfigError(f"{options.class_names} holds no class names, expected one per line")
    size = _size(options, BACKBONE_SIZE)
    texts = zip((_STRUCTURE, _SECOND), structures, strict=True)
    return _Plan(
        size,
        random_cascade(structures, size, len(names), options.candidates, _SEED),
        CascadeRoute(exits=(Exit(body=FIRST, router=ROUTER, head=HEAD), Exit(body=SECOND))),
        names,
        True,
        paths,
        {name: each.text.strip() for name, each in texts} | _DRAWN,
        (_NOTE, *(f"backbone: {structure}" for structure in structures)),
    )


def _write_stages(plan: _Plan, folder: Path, progress: Progress) -> dict[str, Stage]:
    tensors: dict[str, Tensor] = {IMAGES: torch.zeros(EXAMPLE_BATCH, 3, *plan.image_size)}
    entries = {}
    for name, stage in plan.stages.items():
        progress(f"exporting {name}")
        inputs = {read: tensors[read] for read in stage.inputs}
        parameters = sum(parameter.numel() for parameter in stage.parameters())
        folded, file = fold(stage).eval(), f"onnx/{name}.onnx"
        entries[name], outputs = write_stage(
            folded, inputs, stage.outputs, parameters, folder, file
        )
        tensors |= outputs
    return entries


def _size(options: ZenDetOptions, usual: tuple[int, int]) -> tuple[int, int]:
    size = options.image_size or usual
    if max(size) > MAX_SIDE:
        raise InputError(
            f"the image size is {size[0]}x{size[1]}, expected sides up to {MAX_SIDE} pixels"
        )
    return size


def _structure_of(bundle: Bundle, name: str) -> Structure:
    try:
        return parse_structure(str(bundle.manifest.settings[name]))
    except (KeyError, ConfigError):
        raise BundleError(
            f"{bundle.path} does not say what structure its backbone has; export it again"
        ) from None


def _model(source: Path | None, structure: Structure) -> tuple[Model, tuple[str, ...]]:
    if source is not None:
        return load_model(source, structure)
    return random_backbone(structure, _SEED), (_NOTE,)


def _check_parameters(structure: Structure) -> None:
    parameters = cost_of(structure, BACKBONE_SIZE).parameters
    if parameters > _MOST_PARAMETERS:
        raise ExportError(
            f"the structure has {parameters:,} parameters, expected at most {_MOST_PARAMETERS:,}: "
            "an ONNX file holds 2 GiB"
        )


def class_names_of(model: Model, path: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
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


def image_spec(size: tuple[int, int]) -> ImageSpec:
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
