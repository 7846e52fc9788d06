"""The model families that can be exported, and how to get a bundle's source model back."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from dyninfer.bundle import file_sha256
from dyninfer.errors import BundleError
from dyninfer.exporters.dynamicdet import export as dynamicdet
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages
from dyninfer.manifest import Manifest

SourceStages = Callable[[Manifest, Path, Path | None], Mapping[str, nn.Module]]


def _dynamicdet_stages(
    manifest: Manifest, checkpoint: Path, config: Path | None
) -> Mapping[str, nn.Module]:
    dynamicdet.check_source(checkpoint, manifest.source)
    spec = manifest.image_inputs[IMAGES]
    return build_stages(dynamicdet.load_model(checkpoint, config), (spec.height, spec.width))


_FAMILIES: Mapping[str, SourceStages] = {dynamicdet.FAMILY: _dynamicdet_stages}


def source_stages(
    manifest: Manifest, checkpoint: Path, config: Path | None = None
) -> Mapping[str, nn.Module]:
    """The unfolded PyTorch stages that a bundle was exported from, by name.

    Each takes the inputs of its stage in the manifest, in order, and returns its outputs.

    Raises:
        BundleError: the bundle's family has no source model here.
        CheckpointError: the checkpoint is not the bundle's, or cannot be read.
    """
    if manifest.family not in _FAMILIES:
        raise BundleError(
            f"bundles of family {manifest.family!r} cannot be verified by this version; "
            f"it knows {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[manifest.family](manifest, checkpoint, config)


def find_source(manifest: Manifest, bundle: Path, given: Path | None) -> Path:
    """The checkpoint of a bundle: the one given, else a file of its name near by.

    Raises:
        BundleError: no such file is in the working folder or beside the bundle.
    """
    if given is not None:
        return given
    name = Path(manifest.source.file_name).name
    folders = [Path.cwd(), bundle.resolve().parent]
    for folder in folders:
        for candidate in (folder / name, *sorted(folder.glob(f"*/{glob.escape(name)}"))):
            if candidate.is_file() and file_sha256(candidate) == manifest.source.sha256:
                return candidate
    raise BundleError(
        f"the source {name} of {bundle} (by its hash) is neither in {folders[0]} nor in "
        f"{folders[1]}; give it with --source"
    )
