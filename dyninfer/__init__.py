"""Inference for dynamic detectors: little work on easy images, more on hard ones.

    import dyninfer

    with dyninfer.load("dy-yolov7.dyn") as detector:
        detections = detector("street.jpg")
        detector.policy = dyninfer.Threshold(0.42)

Importing this package loads nothing heavy; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dyninfer.bundle import Bundle
    from dyninfer.detector import Detector, load
    from dyninfer.errors import (
        BackendUnavailable,
        BundleError,
        CheckpointError,
        ConfigError,
        DyninferError,
        EngineBuildError,
        EngineRunError,
        ExportError,
        InputError,
        MissingExtra,
        PolicyError,
        VerificationError,
    )
    from dyninfer.imagespec import ColorOrder, ImageSpec, Placement, ResizeMode
    from dyninfer.policy import AlwaysEasy, AlwaysHard, Policy, Threshold, route
    from dyninfer.postprocess import Postprocess
    from dyninfer.types import Detections, RawOutput

_HOMES = {
    "bundle": ("Bundle",),
    "detector": ("Detector", "load"),
    "errors": (
        "BackendUnavailable",
        "BundleError",
        "CheckpointError",
        "ConfigError",
        "DyninferError",
        "EngineBuildError",
        "EngineRunError",
        "ExportError",
        "InputError",
        "MissingExtra",
        "PolicyError",
        "VerificationError",
    ),
    "imagespec": ("ColorOrder", "ImageSpec", "Placement", "ResizeMode"),
    "policy": ("AlwaysEasy", "AlwaysHard", "Policy", "Threshold", "route"),
    "postprocess": ("Postprocess",),
    "types": ("Detections", "RawOutput"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  # grouped as in _HOMES
    "Bundle",
    "Detector",
    "load",
    "BackendUnavailable",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DyninferError",
    "EngineBuildError",
    "EngineRunError",
    "ExportError",
    "InputError",
    "MissingExtra",
    "PolicyError",
    "VerificationError",
    "ColorOrder",
    "ImageSpec",
    "Placement",
    "ResizeMode",
    "AlwaysEasy",
    "AlwaysHard",
    "Policy",
    "Threshold",
    "route",
    "Postprocess",
    "Detections",
    "RawOutput",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("dyninfer")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dyninfer' has no attribute {name!r}")
    value = getattr(import_module(f"dyninfer.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
