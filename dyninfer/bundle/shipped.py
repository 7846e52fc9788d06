"""Models that ship with the package: their names, and the bundle that a name stands for.

In the package a model is its bundle's documents and, compressed, the files of its stages, each
stored once however many models use it. The bundle itself lies in the user's cache: what is
calibrated and built for it is kept there, and the package is only read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from dyninfer.bundle.unpacking import unpack

logger = logging.getLogger("dyninfer")

PACKED = Path(__file__).parent.parent / "models"
"""A folder for each model, and ``files``, which holds ``SHA256.gz`` for each file of a stage."""
_MANIFEST = "bundle.json"
_opened: dict[Path, str] = {}
"""The names of shipped models by the bundles that were opened for them."""


@dataclass(frozen=True)
class ShippedModel:
    """A model of the package, and what it is for."""

    name: str
    purpose: str

    @property
    def folder(self) -> Path:
        """Its bundle's documents."""
        return PACKED / self.name

    @property
    def bundle_name(self) -> str:
        """What its bundle is called in the cache: another version's is another."""
        sealed = (self.folder / _MANIFEST).read_bytes()
        return f"{self.name}-{hashlib.sha256(sealed).hexdigest()[:8]}.dyn"

    def files(self) -> Mapping[str, Path]:
        """Where every file of its bundle lies in the package, ``bundle.json`` last."""
        stages = json.loads((self.folder / _MANIFEST).read_bytes())["stages"].values()
        stored = [each for stage in stages for each in (stage, stage["weights"]) if each]
        documents = sorted(self.folder.glob("*.json"), key=lambda path: path.name == _MANIFEST)
        return {e["file"]: packed_file(e["sha256"]) for e in stored} | {
            path.name: path for path in documents
        }


SHIPPED = {
    model.name: model
    for model in (
        ShippedModel("everyday", "finds people, animals, vehicles and things in photographs"),
        ShippedModel("everyday-sizes", "the same; chooses one of four image sizes for each"),
        ShippedModel("digits", "trying things out: finds handwritten digits in made scenes"),
    )
}


def bytes_of(models: Iterable[ShippedModel]) -> int:
    """Of these models' files in the package; those that they share are counted once."""
    files = {path for model in models for path in model.files().values()}
    return sum(path.stat().st_size for path in files)


def packed_file(sha256: str) -> Path:
    """Where a stage's file with this hash lies in the package."""
    return PACKED / "files" / f"{sha256}.gz"


def shipped_bundle(path: Path) -> Path:
    """The bundle that ``path`` means: for a shipped model's name the one in the cache.

    A bundle of that name in the working folder comes first. What else has that name there is no
    bundle and changes nothing. Either is logged.

    Raises:
        BundleError: the model cannot be unpacked.
    """
    model = SHIPPED.get(str(path))
    if model is None:
        return path
    if (path / _MANIFEST).exists():
        logger.warning(
            "%s is the bundle of that name in this folder, not the model that ships with dyninfer",
            path,
        )
        return path
    if os.path.lexists(path):
        logger.warning(
            "%s is the model that ships with dyninfer; what has that name in this folder is no "
            "bundle",
            path,
        )
    bundle = unpack(model.name, model.bundle_name, model.files())
    _opened[bundle] = model.name
    return bundle


def remake_hint(bundle: Path) -> str | None:
    """How a damaged bundle that was opened by a shipped model's name comes right; else None."""
    if bundle not in _opened:
        return None
    return f"remove {bundle}, and it is unpacked again"


def typed(bundle: Path) -> str:
    """What a command line calls a bundle: the model's name, or the path as a shell takes it."""
    return _opened.get(bundle) or shlex.quote(str(bundle))


def meant_by(path: Path) -> str | None:
    """The shipped model whose name is nearly this; None where there is none."""
    near = get_close_matches(path.stem.lower(), SHIPPED, n=1) if len(path.parts) == 1 else []
    return next(iter(near), None)
