"""Faster R-CNN as a family: a checkpoint becomes a bundle of two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Source, Stage, StaticRoute, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import BundleError, ConfigError, InputError
from dyninfer.exporters.candidate_rows import CANDIDATES, candidates_of
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.faster_rcnn.checkpoint import class_columns, load_model
from dyninfer.exporters.faster_rcnn.model import FasterRCNN, fold
from dyninfer.exporters.faster_rcnn.names import Library
from dyninfer.exporters.faster_rcnn.options import PROPOSALS, Style
from dyninfer.exporters.faster_rcnn.stages import (
    BODY,
    HEAD,
    IMAGES,
    AnyStage,
    build_stages,
    fold_stages,
)
from dyninfer.exporters.faster_rcnn.suppress import OPERATORS
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.images.spec import MAX_SIDE, ColorOrder, ImageSpec, ResizeMode
from dyninfer.results.postprocess import Postprocess

USE = Postprocess(iou=0.5, max_detections=100)
EVALUATION = Postprocess(confidence=0.05, iou=0.5, max_detections=100, several_labels=True)
SIZE = (800, 1344)
"""Of images where none was asked for: the published 800x1333, padded."""
_MULTIPLE = 32
_STYLE, _COLUMNS = "style", "columns"


@dataclass(frozen=True)
class FasterRCNNOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width); ``style`` None for what the file's name tells;
    ``proposals`` are how many regions are looked at, ``candidates`` how many of the surest boxes
    are given on, None for all.
    """

    image_size: tuple[int, int] | None = None
    class_names: Path | None = None
    style: Style | None = None
    proposals: int = PROPOSALS
    candidates: int | None = CANDIDATES
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


class FasterRCNNFamily:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = "detnas"

    def export(
        self, source: Path, output: Path, options: FasterRCNNOptions, progress: Progress
    ) -> Exported:
        """Export a checkpoint."""
        check_target(output, overwrite=options.overwrite)
        size = _checked(options.image_size or SIZE)
        style = options.style or (Style.CAFFE if "caffe" in source.name else Style.PYTORCH)
        loaded = load_model(source, stride_first=style is Style.CAFFE)
        if style is Style.CAFFE and loaded.library is Library.TORCHVISION:
            raise ConfigError(f"{source} is of torchvision, whose style is pytorch, not caffe")
        model, conventions = loaded.model, loaded.conventions
        names, columns, note = class_columns(
            model.structure.columns,
            options.class_names,
            background_first=conventions.background_first,
        )
        stages = build_stages(
            model, size, columns, options.proposals, options.candidates, conventions
        )

        def write(folder: Path) -> Manifest:
            return Manifest(
                name=options.name or output.name.removesuffix(SUFFIX),
                family=self.name,
                task=Task.DETECT,
                class_names=names,
                route=StaticRoute(body=BODY, head=HEAD),
                stages=_write(folder, model, stages, size, progress),
                image_inputs={IMAGES: _image_spec(size, style)},
                postprocess=USE,
                evaluation=EVALUATION,
                source=Source(
                    file_name=source.name, sha256=file_sha256(source), licence=options.licence
                ),
                settings={_STYLE: style.value, _COLUMNS: columns},
                written_by=f"dyninfer {__version__}",
            )

        made = write_bundle(output, write, overwrite=options.overwrite)
        found = f"weights: {loaded.library.value}'s, {model.structure}"
        colours = "BGR, strides in 1x1" if style is Style.CAFFE else "RGB, strides in 3x3"
        told = f"style: {style.value} ({colours}); weights do not tell it (--style does)"
        guessed = (told,) if loaded.library is Library.MMDETECTION and not options.style else ()
        return Exported(made, (*loaded.notes, found, note, *guessed))

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], _config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded, with the same proposals and decode."""
        manifest = bundle.manifest
        try:
            style, columns = Style(manifest.settings[_STYLE]), manifest.settings[_COLUMNS]
            entry = manifest.stages[HEAD]
            count = next(int(s.shape[1]) for s in entry.inputs if s.name == "objectness")
        except (KeyError, ValueError, StopIteration):
            columns = ""
        if not isinstance(columns, tuple) or len(columns) != len(manifest.class_names):
            raise BundleError(
                f"{bundle.path} does not say how its source is to be run; export it again"
            )
        loaded = load_model(sources[0], stride_first=style is Style.CAFFE)
        if not all(0 <= column < loaded.model.structure.columns for column in columns):
            raise BundleError(f"{bundle.path} names columns that its source has not; export again")
        spec, kept = manifest.image_inputs[IMAGES], candidates_of(entry)
        size = (spec.height, spec.width)
        made = build_stages(loaded.model, size, columns, count, kept, loaded.conventions)
        return {name: TorchStage(module) for name, module in made.items()}

    def fold(
        self, stages: Mapping[str, SourceStage], _manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norms go into the convolutions before them."""
        return fold_stages(stages)


FASTER_RCNN = FasterRCNNFamily()


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if max(size) > MAX_SIDE or any(side % _MULTIPLE for side in size):
        raise InputError(
            f"the image size is {size[0]}x{size[1]}, expected multiples of {_MULTIPLE} up to "
            f"{MAX_SIDE} pixels, such as {SIZE[0]}x{SIZE[1]}"
        )
    return size


def _write(
    folder: Path,
    model: FasterRCNN,
    stages: Mapping[str, AnyStage],
    size: tuple[int, int],
    progress: Progress,
) -> dict[str, Stage]:
    folded = fold(model)
    parts: dict[str, tuple[nn.Module, ...]] = {
        BODY: (model.backbone, model.neck, model.rpn_head),
        HEAD: (model.roi_head,),
    }
    tensors: dict[str, Tensor] = {IMAGES: torch.zeros(EXAMPLE_BATCH, 3, *size)}
    entries = {}
    for name, stage in stages.items():
        progress(f"exporting {name}")
        entries[name], made = write_stage(
            stage.of(folded).eval(),
            {each: tensors[each] for each in stage.inputs},
            stage.outputs,
            sum(p.numel() for part in parts[name] for p in part.parameters()),
            folder,
            f"onnx/{name}.onnx",
            operators=OPERATORS,
        )
        tensors |= made
    return entries


def _image_spec(size: tuple[int, int], style: Style) -> ImageSpec:
    """One scale, the picture at the top left of a mean colour, whose normalised value is all but 0.

    As both libraries prepare it: they pad with zeros after normalising.
    """
    if style is Style.CAFFE:
        return ImageSpec(
            *size,
            resize=ResizeMode.PAD_BOTTOM_RIGHT,
            color_order=ColorOrder.BGR,
            mean=(103.53, 116.28, 123.675),
            std=(1.0, 1.0, 1.0),
            pad_value=(104, 116, 124),
        )
    return ImageSpec(
        *size,
        resize=ResizeMode.PAD_BOTTOM_RIGHT,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        pad_value=(124, 116, 104),
    )
