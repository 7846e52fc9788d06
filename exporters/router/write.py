"""The new bundle: the old one's stages, another router, and how that was fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import (
    BATCH_AXIS,
    CHOICE_SCORES,
    EASINESS,
    CascadeRoute,
    Manifest,
    SelectRoute,
    Stage,
    TensorSpec,
)
from dyninfer.bundle.writing import write_bundle, write_stage_file
from dyninfer.exporters.cascade.arithmetic import parameter_count
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.router.choosing import ChooserFit
from dyninfer.exporters.router.model import FittedRouter
from dyninfer.exporters.shared_weights import share_weights

CHOOSER = "chooser"


def write_routed(
    old: Bundle,
    output: Path,
    routers: Sequence[FittedRouter],
    record: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a bundle with these routers, one for every exit but the last.

    ``calibration.json`` and ``parity.json`` stay behind: they do not hold for another router.
    Engines that were built for a device stay behind as well. ``record`` says how the routers were
    fitted, for ``router.json``.

    Raises:
        ExportError: the bundle exists, cannot be written, or a router cannot be exported.
    """
    routed = old.manifest.deciders
    kept = {name: stage for name, stage in old.manifest.stages.items() if name not in routed}
    names = [_free_name(kept, index, len(routers)) for index in range(len(routers))]

    def write(folder: Path) -> Manifest:
        for name in kept:
            old.copy_stage(name, folder)
        fitted = {
            name: _export(router, folder, f"onnx/{name}.onnx")
            for name, router in zip(names, routers, strict=True)
        }
        exits = (
            exit_.model_copy(update={"router": router})
            for exit_, router in zip(old.manifest.ways, [*names, None], strict=True)
        )
        return _changed(old, output, CascadeRoute(exits=tuple(exits)), kept | fitted)

    return write_bundle(output, write, overwrite=overwrite, router_record=record)


def write_chosen(
    old: Bundle, output: Path, fit: ChooserFit, *, overwrite: bool = False
) -> Manifest:
    """Write a bundle with this chooser; its branches, and all else, as in :func:`write_routed`.

    Raises:
        ExportError: the bundle exists or cannot be written.
    """
    manifest = old.manifest
    route = manifest.route
    assert isinstance(route, SelectRoute)  # what a chooser was fitted to
    kept = {name: stage for name, stage in manifest.stages.items() if name != route.chooser}
    name = _free_name(kept, 0, 1, CHOOSER)
    body = manifest.stages[manifest.ways[manifest.ways_by_cost[0]].body]

    def write(folder: Path) -> Manifest:
        for stage in kept:
            old.copy_stage(stage, folder)
        file = f"onnx/{name}.onnx"
        chooser = Stage(
            file=file,
            sha256=write_stage_file(folder, file, fit.model.SerializeToString()),
            inputs=tuple(spec for spec in body.inputs if spec.name == fit.image_input),
            outputs=(
                TensorSpec(
                    name=CHOICE_SCORES, dtype="float32", shape=(BATCH_AXIS, len(manifest.ways))
                ),
            ),
            parameters=parameter_count(fit.model.graph),
            macs=fit.macs,
            rows_per_run=body.rows_per_run,
        )
        stages = share_weights(folder, {name: chooser} | kept)
        return _changed(old, output, SelectRoute(chooser=name, branches=route.branches), stages)

    return write_bundle(output, write, overwrite=overwrite, router_record=fit.record)


def _changed(
    old: Bundle, output: Path, route: CascadeRoute | SelectRoute, stages: Mapping[str, Stage]
) -> Manifest:
    """The old manifest with another route, stages and name."""
    changes = {
        "name": output.name.removesuffix(SUFFIX),
        "route": route,
        "stages": stages,
        "written_by": f"dyninfer {__version__}",
    }
    # not dict(): one that was used keeps more than its fields
    fields = {name: getattr(old.manifest, name) for name in Manifest.model_fields}
    return Manifest.model_validate(fields | changes)


def _free_name(kept: Mapping[str, Stage], index: int, count: int, what: str = "router") -> str:
    """``router``, or ``router_1`` and so on where there are several; other names are taken."""
    name = what if count == 1 else f"{what}_{index + 1}"
    taken = {*kept, *(Path(stage.file).stem for stage in kept.values())}
    while name in taken:
        name += "_fitted"
    return name


def _export(router: FittedRouter, folder: Path, file: str) -> Stage:
    generator = torch.Generator().manual_seed(0)
    examples: dict[str, Tensor] = {}
    for spec in router.inputs:
        shape = spec.shape_for(EXAMPLE_BATCH)
        assert shape is not None, "checked where the features were built"
        noise = torch.rand(shape, generator=generator)
        examples[spec.name] = noise.to(getattr(torch, spec.dtype))
    parameters = sum(parameter.numel() for parameter in router.parameters())
    return write_stage(router, examples, (EASINESS,), parameters, folder, file)[0]
