"""The model families that can be exported, and how to get a bundle's source model back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError
from dyninfer.exporters.cascade.export import CASCADE, ONNX
from dyninfer.exporters.drnet.export import DRNET
from dyninfer.exporters.dynamicdet.export import DYNAMICDET
from dyninfer.exporters.efficientdet.export import EFFICIENTDET
from dyninfer.exporters.family import Family, SourceStage
from dyninfer.exporters.faster_rcnn.export import FASTER_RCNN
from dyninfer.exporters.zendet.export import ZENDET

AnyFamily = Family[NoReturn, NoReturn]
"""A family of which nothing is known: what it exports from, only its own command can give."""

FAMILIES: Mapping[str, AnyFamily] = {
    family.name: family
    for family in (DYNAMICDET, CASCADE, ONNX, EFFICIENTDET, DRNET, ZENDET, FASTER_RCNN)
}


def family_of(bundle: Bundle) -> AnyFamily:
    """The family that a bundle was exported by.

    Raises:
        BundleError: it is not known here.
    """
    name = bundle.manifest.family
    if name not in FAMILIES:
        raise BundleError(
            f"bundles of family {name!r} cannot be verified by this version; "
            f"it knows {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def source_stages(
    bundle: Bundle, checkpoints: Sequence[Path], config: Path | None = None
) -> Mapping[str, SourceStage]:
    """As :meth:`dyninfer.exporters.family.Family.source_stages`, but of no router fitted later."""
    stages = family_of(bundle).source_stages(bundle, checkpoints, config)
    fitted = bundle.manifest.deciders if bundle.router_record() is not None else ()
    return {name: stage for name, stage in stages.items() if name not in fitted}
