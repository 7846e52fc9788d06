"""A bundle of its own whose stages are the converted ones: it runs wherever bundles run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dyninfer import __version__
from dyninfer.bundle.folder import MANIFEST_FILE, Bundle, file_sha256, new_bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.sealed import dump_sealed


@dataclass(frozen=True)
class ConvertedStage:
    """A stage's file in the precision that was asked for.

    Attributes:
        precision: of the file.
        path: the ONNX file: the bundle's own where nothing was to be changed.
        sha256: of the file.
        kept_float: layers that stay in float32 because their quantisation cost too much.
        deviation: of the stage's outputs from float32 on calibration pictures (``deviation.py``);
            None where it was not needed to decide anything.
    """

    precision: Precision
    path: Path
    sha256: str
    kept_float: tuple[str, ...] = ()
    deviation: float | None = None


def write_variant(
    bundle: Bundle, converted: Mapping[str, ConvertedStage], path: Path, *, overwrite: bool = False
) -> Path:
    """Write a bundle that differs from ``bundle`` in the converted stages only.

    What was measured on ``bundle``, its calibration and verification, is not taken over: neither
    holds for other arithmetic.

    Raises:
        ExportError: something is at ``path`` and ``overwrite`` is False, or it cannot be written.
    """
    manifest = bundle.manifest
    stages = dict(manifest.stages)
    with new_bundle(path, overwrite=overwrite) as folder:
        for name, entry in manifest.stages.items():
            chosen = converted.get(name)
            target = folder / entry.file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(chosen.path if chosen else bundle.stage_path(name), target)
            if chosen:
                update = {"sha256": file_sha256(target), "precision": chosen.precision}
                stages[name] = entry.model_copy(update=update)
        changed = manifest.model_copy(
            update={"stages": stages, "written_by": f"dyninfer {__version__}"}
        )
        text = dump_sealed(changed.model_dump(mode="json"))
        (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return path
