"""The new bundle: the old one's stages, another router, and how that was fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyninfer import __version__
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import EASINESS, CascadeRoute, Manifest, Stage
from dyninfer.bundle.writing import write_bundle
from dyninfer.exporters.onnx_export import EXAMPLE_BATCH, write_stage
from dyninfer.exporters.router.model import FittedRouter


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
        changes = {
            "name": output.name.removesuffix(SUFFIX),
            "route": CascadeRoute(exits=tuple(exits)),
            "stages": kept | fitted,
            "written_by": f"dyninfer {__version__}",
        }
        # not dict(): one that was used keeps more than its fields
        fields = {name: getattr(old.manifest, name) for name in Manifest.model_fields}
        return Manifest.model_validate(fields | changes)

    return write_bundle(output, write, overwrite=overwrite, router_record=record)


def _free_name(kept: Mapping[str, Stage], index: int, count: int) -> str:
    """``router``, or ``router_1`` and so on where there are several; other names are taken."""
    name = "router" if count == 1 else f"router_{index + 1}"
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
