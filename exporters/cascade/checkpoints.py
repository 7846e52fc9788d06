"""Detectors of a cascade that are checkpoints of EfficientDets."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.options import DetectorSource, check_options
from dyninfer.exporters.cascade.write import fields_named
from dyninfer.exporters.efficientdet.detector import PlannedEfficientDet, plan_efficientdet

OPTIONS = frozenset(("size", "class-names", "config"))
_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".tar")
_ARCHIVE = b"PK\3\4"  # how a file of torch.save begins


def is_checkpoint(path: Path) -> bool:
    """Whether a file is to be read as a checkpoint, by its name or, of other names, its start."""
    suffix = path.suffix.lower()
    if suffix not in (*_SUFFIXES, ".onnx") and path.is_file():
        with suppress(OSError), path.open("rb") as file:  # whoever reads it as ONNX reports it
            return file.read(len(_ARCHIVE)) == _ARCHIVE
    return suffix in _SUFFIXES


def read_checkpoint(prefix: str, source: DetectorSource) -> PlannedEfficientDet:
    """Read one, and settle what its weights do not tell; see :func:`plan_efficientdet`.

    ``prefix`` is how the options for this detector begin.
    """
    with fields_named():
        takes = ", ".join(f"--{prefix}{name}" for name in sorted(OPTIONS))
        check_options(prefix, source, f"a checkpoint, which takes {takes}", OPTIONS)
        try:
            return plan_efficientdet(
                source.path, source.size, source.class_names, source.config, f"{prefix}config"
            )
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; of other detectors, a cascade takes ONNX files"
            ) from error
