"""``dyninfer export dynamicdet``: a checkpoint becomes a bundle of four stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, file_sha256
from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task
from dyninfer.bundle.writing import check_target, write_bundle
from dyninfer.errors import InputError
from dyninfer.exporters.class_names import class_names_for
from dyninfer.exporters.dynamicdet.checkpoint import read_state
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector, model_from_state
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages
from dyninfer.exporters.dynamicdet.topology import Part, recognise
from dyninfer.exporters.family import Progress
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, StageExport, write_stage
from dyninfer.images.spec import MAX_SIDE, ImageSpec
from dyninfer.results.postprocess import EVALUATION, Postprocess

FAMILY = "dynamicdet"


@dataclass(frozen=True)
class DynamicDetOptions:
    """What the command line offers for this family.

    ``image_size`` is (height, width), None for 640 or, with a stride of 64, 1280.
    """

    image_size: tuple[int, int] | None = None
    class_names: Path | None = None
    config: Path | None = None
    name: str | None = None
    licence: str | None = None
    overwrite: bool = False


def load_model(checkpoint: Path, config: Path | None = None) -> DynamicDetector:
    """The source model of a checkpoint, unfolded, in float32.

    Raises:
        CheckpointError: the file cannot be read safely or does not fit its topology.
        ConfigError: the YAML is not usable, or the topology is not a published one.
    """
    state = read_state(checkpoint)
    topology = read_topology(config) if config else recognise(state)
    return model_from_state(topology, state)


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
    check_target(output, overwrite=options.overwrite)
    model = load_model(checkpoint, options.config)
    size = choose_image_size(options.image_size, model.plan.largest_stride)
    names = class_names_for(model.plan.classes, options.class_names)

    def write(folder: Path) -> Manifest:
        stages = write_stages(model, size, folder, progress)
        return Manifest(
            name=options.name or output.name.removesuffix(SUFFIX),
            family=FAMILY,
            task=Task.DETECT,
            class_names=names,
            route=_route(stages),
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

    return write_bundle(output, write, overwrite=options.overwrite)


def choose_image_size(asked: tuple[int, int] | None, stride: int) -> tuple[int, int]:
    """Height and width of the input: what was asked for, or the published models' size.

    Raises:
        InputError: a side is not a positive multiple of the stride; the nearest sizes are named.
    """
    if asked is None:
        side = 1280 if stride == 64 else -(-640 // stride) * stride
        return side, side
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


def write_stages(
    model: DynamicDetector, size: tuple[int, int], folder: Path, progress: Progress
) -> dict[str, Stage]:
    """Export every stage of a model into ``folder``."""
    parameters = stage_parameters(model)
    tensors: dict[str, Tensor] = {
        IMAGES: torch.rand(EXAMPLE_BATCH, 3, *size, generator=torch.Generator().manual_seed(0))
    }
    entries = {}
    for name, module in build_stages(fold(model), size).items():
        progress(name)
        inputs = {read: tensors[read] for read in module.inputs}
        stage = StageExport(module, inputs, module.outputs, parameters[name])
        entries[name], outputs = write_stage(stage, folder, f"onnx/{name}.onnx")
        tensors |= outputs
    return entries


def stage_parameters(model: DynamicDetector) -> dict[str, int]:
    """Parameters of each stage of the source model, before folding."""

    def count(module: nn.Module | None) -> int:
        return 0 if module is None else sum(p.numel() for p in module.parameters())

    parts: Mapping[Part, int] = {part: count(getattr(model, part.prefix)) for part in Part}
    return {
        "first": parts[Part.FIRST],
        "router": count(model.router),
        "head": parts[Part.HEAD],
        "second": parts[Part.SECOND] + parts[Part.HEAD2],
    }


def _route(stages: Mapping[str, Stage]) -> CascadeRoute:
    router = "router" if "router" in stages else None
    return CascadeRoute(exits=(Exit(body="first", router=router, head="head"), Exit(body="second")))
