"""DynamicDet as a family: a checkpoint becomes a bundle of four stages, a cascade of two exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import InputError
from dyninfer.exporters.candidate_rows import CANDIDATES, candidates_of
from dyninfer.exporters.class_names import class_names_for
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model
from dyninfer.exporters.dynamicdet.stages import IMAGES, FirstStage, build_stages
from dyninfer.exporters.dynamicdet.topology import Part
from dyninfer.exporters.family import Exported, Progress, SourceStage, TorchStage
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.images.spec import MAX_SIDE, ImageSpec
from dyninfer.results.postprocess import EVALUATION, Postprocess


@dataclass(frozen=True)
class DynamicDetOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width), None for 640 or, with a stride of 64, 1280; ``candidates``
    are how many anchors of the largest scores each head gives on, None for all.
    """

    image_size: tuple[int, int] | None = None
    class_names: Path | None = None
    config: Path | None = None
    candidates: int | None = CANDIDATES
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


class DynamicDet:
    """See :class:`dyninfer.exporters.family.Family`."""

    name = "dynamicdet"

    def export(
        self, source: Path, output: Path, options: DynamicDetOptions, progress: Progress
    ) -> Exported:
        """Export a checkpoint."""
        return _export(source, output, options, lambda stage: progress(f"exporting {stage}"))

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], config: Path | None
    ) -> Mapping[str, SourceStage]:
        """The checkpoint's own model, unfolded."""
        return _source_stages(load_model(sources[0], config), bundle.manifest)

    def fold(
        self, stages: Mapping[str, SourceStage], manifest: Manifest
    ) -> Mapping[str, SourceStage]:
        """Batch norm, branches and implicit layers go into the convolutions beside them."""
        first = stages[manifest.ways[0].body]
        assert isinstance(first, TorchStage)  # of this family's source_stages
        assert isinstance(first.module, FirstStage)
        folded = _source_stages(fold(first.module.model), manifest)
        return {name: stage for name, stage in folded.items() if name in stages}


DYNAMICDET = DynamicDet()


def _source_stages(model: DynamicDetector, manifest: Manifest) -> dict[str, SourceStage]:
    spec = manifest.image_inputs[IMAGES]
    # a head with fewer anchors gives on all of them
    kept = max(candidates_of(manifest.stages[way.final]) for way in manifest.ways)
    stages = build_stages(model, (spec.height, spec.width), kept)
    return {name: TorchStage(stage) for name, stage in stages.items()}


def export_dynamicdet(
    checkpoint: Path,
    output: Path,
    options: DynamicDetOptions = DynamicDetOptions(),
    progress: Progress = lambda _stage: None,
) -> Manifest:
    """Export a checkpoint; ``progress`` is called with the name of each stage as it starts.

    Raises:
        DyninferError: a subclass that names the cause; nothing is left on disk.
    """
    return _export(checkpoint, output, options, progress).manifest


def _export(
    checkpoint: Path, output: Path, options: DynamicDetOptions, progress: Progress
) -> Exported:
    check_target(output, overwrite=options.overwrite)
    model = load_model(checkpoint, options.config)
    size = choose_image_size(options.image_size, model.plan.largest_stride)
    names = class_names_for(model.plan.classes, options.class_names)

    def write(folder: Path) -> Manifest:
        stages = _write_stages(model, size, options.candidates, folder, progress)
        first = Exit(body="first", router="router" if "router" in stages else None, head="head")
        return Manifest(
            name=options.name or output.name.removesuffix(SUFFIX),
            family=DYNAMICDET.name,
            task=Task.DETECT,
            class_names=names,
            route=CascadeRoute(exits=(first, Exit(body="second"))),
            stages=stages,
            image_inputs={IMAGES: ImageSpec(height=size[0], width=size[1])},
            postprocess=Postprocess(),
            evaluation=EVALUATION,
            source=Source(
                file_name=checkpoint.name,
                sha256=file_sha256(checkpoint),
                licence=options.licence,
                config_file_name=options.config.name if options.config else None,
            ),
            written_by=f"dyninfer {__version__}",
        )

    return Exported(write_bundle(output, write, overwrite=options.overwrite), model.notes)


def choose_image_size(asked: tuple[int, int] | None, stride: int) -> tuple[int, int]:
    """Height and width of the input: what was asked for, or the published models' size.

    Raises:
        InputError: a side is not a positive multiple of the stride; the nearest sizes are named.
    """
    side = 1280 if stride == 64 else -(-640 // stride) * stride
    asked = asked or (side, side)
    for side in asked:
        if side > MAX_SIDE:
            raise InputError(
                f"the image size is {asked[0]}x{asked[1]}, expected sides up to {MAX_SIDE} pixels"
            )
        if side < stride or side % stride:
            below = max(stride, side // stride * stride)
            raise InputError(
                f"the image size is {asked[0]}x{asked[1]}, but both sides must be multiples of "
                f"{stride}, the model's stride; near {side} are {below} and {below + stride}"
            )
    return asked


def _write_stages(
    model: DynamicDetector,
    size: tuple[int, int],
    candidates: int | None,
    folder: Path,
    progress: Progress,
) -> dict[str, Stage]:
    parameters = stage_parameters(model)
    tensors: dict[str, Tensor] = {
        IMAGES: torch.rand(EXAMPLE_BATCH, 3, *size, generator=torch.Generator().manual_seed(0))
    }
    entries = {}
    for name, module in build_stages(fold(model), size, candidates).items():
        progress(name)
        inputs = {read: tensors[read] for read in module.inputs}
        entries[name], outputs = write_stage(
            module, inputs, module.outputs, parameters[name], folder, f"onnx/{name}.onnx"
        )
        tensors |= outputs
    return entries


def stage_parameters(model: DynamicDetector) -> dict[str, int]:
    """Parameters of each stage of the source model, before folding."""

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    first, second, head, head2 = (getattr(model, part.prefix) for part in Part)
    router = [] if model.router is None else [model.router]
    return {
        "first": count(first),
        "router": count(*router),
        "head": count(head),
        "second": count(second, head2),
    }
