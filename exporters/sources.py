"""Finding the files that a bundle was made from, by their hashes. Cheap to import."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Source
from dyninfer.errors import BundleError, CheckpointError


def find_sources(manifest: Manifest, bundle: Path, given: Sequence[Path] = ()) -> list[Path]:
    """The files that a bundle was made from, in the manifest's order.

    ``given`` are files, and folders to look into; then the working folder and that of ``bundle``
    are searched, and the folders in them.

    Raises:
        CheckpointError: a file that was given is none of the bundle's sources, or is not there.
        BundleError: a source is nowhere to be found.
    """
    sources = (manifest.source, *manifest.further_sources)
    hashes: dict[str, Path] = {}
    for path in given:
        if path.is_dir():
            continue
        try:
            found = file_sha256(path)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read: {error.strerror}; check the path of the source"
            ) from None
        hashes[found] = path
        if found not in {source.sha256 for source in sources}:
            names = ", ".join(f"{s.file_name}, {s.sha256[:12]}..." for s in sources)
            raise CheckpointError(
                f"{path} is not what the bundle was exported from (SHA-256 {found[:12]}..., "
                f"expected {names})"
            )
    folders = [*(path for path in given if path.is_dir()), Path.cwd(), bundle.resolve().parent]
    return [hashes.get(s.sha256) or _search(s, folders, bundle) for s in sources]


def _search(source: Source, folders: Sequence[Path], bundle: Path) -> Path:
    name = Path(source.file_name).name
    for folder in folders:
        for candidate in (folder / name, *sorted(folder.glob(f"*/{glob.escape(name)}"))):
            if candidate.is_file() and file_sha256(candidate) == source.sha256:
                return candidate
    places = list(dict.fromkeys(map(str, folders)))
    where = f"neither in {' nor in '.join(places)}" if len(places) > 1 else f"not in {places[0]}"
    raise BundleError(
        f"the source file {name!r} of {bundle}, known by its hash, is {where}; "
        "give its path as source (--source)"
    )
