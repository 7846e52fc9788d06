"""An EfficientDet of a checkpoint whose class names, size and configuration are settled."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Source, Stage, Way
from dyninfer.errors import BundleError, ConfigError, InputError
from dyninfer.exporters.candidate_rows import CANDIDATES, candidates_of
from dyninfer.exporters.class_names import COCO, COCO_IDS, class_names_for, read_names
from dyninfer.exporters.efficientdet.anchors import make_anchors
from dyninfer.exporters.efficientdet.config import PUBLISHED, Published, choose
from dyninfer.exporters.efficientdet.fold import fold
from dyninfer.exporters.efficientdet.model import EfficientDet, model_from_state
from dyninfer.exporters.efficientdet.stages import Decode, build_stages
from dyninfer.exporters.family import SourceStage, TorchStage
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.weights import Naming, find_weights
from dyninfer.images.spec import MAX_SIDE, ImageSpec
from dyninfer.plain_text import counted

COLUMNS_KEY = "dyninfer_columns"
_COLUMNS = TypeAdapter(list[int])
_COCO_COLUMNS = [number - 1 for number in COCO_IDS]  # ids from 1 to 90 with gaps
_NAMING = Naming(
    family="EfficientDet",
    first="backbone.conv_stem.",
    own=re.compile(r"((?:[^.]+\.)*?)backbone\.conv_stem\.weight"),
    foreign=r"(.*\.)?anchors\.boxes",  # of benches, which are models with their post-processing
)


@dataclass(frozen=True)
class PlannedEfficientDet:
    """A checkpoint's model, unfolded, and what its weights do not tell.

    ``size`` is height and width in pixels, ``notes`` are lines for the user on what was found.
    """

    path: Path
    model: EfficientDet
    published: Published
    size: tuple[int, int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def image(self) -> ImageSpec:
        """How a picture becomes an input."""
        return self.published.image(self.size)

    @property
    def columns(self) -> list[int]:
        """The place of each class in the class logits."""
        every = list(range(self.model.structure.classes))
        return every if len(self.class_names) == len(every) else _COCO_COLUMNS

    def source(self, licence: str | None) -> Source:
        """Where the weights came from, with the name of the configuration."""
        return Source(
            file_name=self.path.name,
            sha256=file_sha256(self.path),
            licence=licence,
            config_file_name=self.published.name,
        )

    def write(
        self,
        folder: Path,
        name: str,
        image_input: str,
        columns: Sequence[int],
        candidates: int | None = CANDIDATES,
        *,
        split: bool = False,
    ) -> dict[str, Stage]:
        """Write the stages of :func:`build_stages`, folded, into the folder of a bundle.

        ``columns`` are the places of the bundle's classes in the class logits, -1 for one that this
        model does not have; the files note them for :func:`source_stages`.

        Returns:
            The stages' entries in the manifest.
        """
        model, parts = self.model, ("backbone", "fpn", "class_net", "box_net")
        counts = [sum(p.numel() for p in getattr(model, part).parameters()) for part in parts]
        parameters = [sum(counts[:2]), sum(counts[2:])] if split else [sum(counts)]
        notes = {COLUMNS_KEY: json.dumps(list(columns))}
        decode = _decode(model, self.published, self.size, columns, candidates)
        levels = model.structure.levels if split else None
        stages = build_stages(fold(model), decode, name, image_input, levels=levels)
        tensors: dict[str, Tensor] = {image_input: torch.zeros(EXAMPLE_BATCH, 3, *self.size)}
        entries = {}
        for (stage, module), count in zip(stages.items(), parameters, strict=True):
            inputs = {read: tensors[read] for read in module.inputs}
            entries[stage], made = write_stage(
                module, inputs, module.outputs, count, folder, f"onnx/{stage}.onnx", notes
            )
            tensors |= made
        return entries


def plan_efficientdet(
    checkpoint: Path,
    image_size: tuple[int, int] | None,
    class_names: Path | None,
    config: str | None,
    option: str = "config",
) -> PlannedEfficientDet:
    """Read a checkpoint and settle what is to be exported of it.

    ``option`` is what a user gives ``config`` with.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are of no EfficientDet.
        ConfigError: nothing tells the configuration, or it or the class names do not fit.
        InputError: the image size is too large.
    """
    weights = find_weights(checkpoint, _NAMING)
    model = model_from_state(weights.state)
    chosen, note = choose(model.structure, checkpoint, config, weights.arch, option)
    if chosen.native_backbone:
        model = model_from_state(weights.state, native_backbone=True)
    size = image_size or (chosen.scaled.image_size,) * 2
    if max(size) > MAX_SIDE:
        raise InputError(
            f"the image size is {size[0]}x{size[1]}, expected sides up to {MAX_SIDE} pixels"
        )
    names = _class_names(model.structure.classes, class_names)
    return PlannedEfficientDet(checkpoint, model, chosen, size, names, (*weights.notes, note))


def load_model(checkpoint: Path, *, native_backbone: bool = False) -> EfficientDet:
    """The source model of a checkpoint, unfolded, in float32.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are of no EfficientDet.
    """
    state = find_weights(checkpoint, _NAMING).state
    return model_from_state(state, native_backbone=native_backbone)


def source_stages(
    bundle: Bundle, way: Way, source: Source, checkpoint: Path
) -> dict[str, SourceStage]:
    """The stages of a way as the checkpoint's own model makes them, unfolded.

    Raises:
        BundleError: the bundle does not say how its source is to be run.
        CheckpointError: the checkpoint cannot be read.
    """
    name, manifest = source.config_file_name, bundle.manifest
    if name is None or name not in PUBLISHED:
        raise BundleError(
            f"{bundle.path} names the configuration {name!r}, which is none of the published; "
            "export it again"
        )
    columns, published = _read_columns(bundle, way), PUBLISHED[name]
    model = load_model(checkpoint, native_backbone=published.native_backbone)
    classes = model.structure.classes
    if len(columns) != len(manifest.class_names) or not all(-1 <= c < classes for c in columns):
        raise BundleError(
            f"the columns that stage {way.final!r} of {bundle.path} names do not fit its "
            f"{counted(len(manifest.class_names), 'class')} and the {classes} of "
            f"{checkpoint.name}; "
            "export it again"
        )
    spec = manifest.image_inputs[way.image_input]
    kept = candidates_of(manifest.stages[way.final])
    decode = _decode(model, published, (spec.height, spec.width), columns, kept)
    levels = model.structure.levels if way.head else None
    made = build_stages(model, decode, way.body, way.image_input, levels=levels)
    return {stage: TorchStage(module) for stage, module in made.items()}


def _read_columns(bundle: Bundle, way: Way) -> list[int]:
    """What the last stage of a way notes of its class logits."""
    with bundle.opening(way.final) as file:
        model = onnx.load(str(file), load_external_data=False)
    text = next((e.value for e in model.metadata_props if e.key == COLUMNS_KEY), "")
    try:
        return _COLUMNS.validate_json(text)
    except ValidationError:
        raise BundleError(
            f"stage {way.final!r} of {bundle.path} does not say which columns its classes are; "
            "export it again"
        ) from None


def _decode(
    model: EfficientDet,
    published: Published,
    size: tuple[int, int],
    columns: Sequence[int],
    candidates: int | None,
) -> Decode:
    """The decode of a model, which forgets the classes of the others' columns.

    COCO's 90 columns are all kept: those without a class are never the surest.
    """
    structure = model.structure
    kept = list(range(structure.classes))
    named = sorted({column for column in columns if column >= 0})
    if named not in (kept, _COCO_COLUMNS if len(kept) == COCO_IDS[-1] else kept):
        model.keep_classes(named)  # or the others would take candidates from the bundle's classes
        kept = named
    places = [kept.index(column) if column >= 0 else -1 for column in columns]
    anchors = make_anchors(size, structure.levels, published.anchor_scale)
    return Decode(
        anchors,
        candidates or len(anchors),
        None if places == list(range(len(kept))) else places,
    )


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
