"""The model families that can be exported, and how to get a bundle's source model back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError
from dyninfer.exporters.cascade import export as cascade
from dyninfer.exporters.cascade.verification import cascade_stages
from dyninfer.exporters.dynamicdet import export as dynamicdet
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages
from dyninfer.exporters.source_stage import SourceStage, torch_stages

SourceStages = Callable[[Bundle, Sequence[Path], Path | None], Mapping[str, SourceStage]]


def _dynamicdet_stages(
    bundle: Bundle, checkpoints: Sequence[Path], config: Path | None
) -> Mapping[str, SourceStage]:
    checkpoint, manifest = checkpoints[0], bundle.manifest
    dynamicdet.check_source(checkpoint, manifest.source)
    spec = manifest.image_inputs[IMAGES]
    model = dynamicdet.load_model(checkpoint, config)
    return torch_stages(build_stages(model, (spec.height, spec.width)))


_FAMILIES: Mapping[str, SourceStages] = {
    dynamicdet.FAMILY: _dynamicdet_stages,
    cascade.FAMILY: cascade_stages,
}


def source_stages(
    bundle: Bundle, checkpoints: Sequence[Path], config: Path | None = None
) -> Mapping[str, SourceStage]:
    """The stages of the source model that a bundle was exported from, by name.

    Each takes the inputs of its stage in the manifest, in order, and returns its outputs. Stages
    that were added to the bundle afterwards have none.

    Args:
        bundle: what is to be compared.
        checkpoints: its sources, in the manifest's order; see
            :func:`dyninfer.exporters.sources.find_sources`.
        config: the configuration that was given to the export, if any.

    Raises:
        BundleError: the bundle's family has no source model here.
        CheckpointError: a checkpoint is not the bundle's, or cannot be read.
    """
    family = bundle.manifest.family
    if family not in _FAMILIES:
        raise BundleError(
            f"bundles of family {family!r} cannot be verified by this version; "
            f"it knows {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[family](bundle, checkpoints, config)
