"""The model families that can be exported, and how to get a bundle's source model back."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dyninfer.bundle import Bundle, file_sha256
from dyninfer.errors import BundleError, CheckpointError
from dyninfer.exporters.cascade import export as cascade
from dyninfer.exporters.cascade.verification import cascade_stages
from dyninfer.exporters.dynamicdet import export as dynamicdet
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages
from dyninfer.exporters.source_stage import SourceStage, torch_stages
from dyninfer.manifest import Manifest, Source

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
        checkpoints: its sources, in the manifest's order; see :func:`find_sources`.
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


def find_sources(manifest: Manifest, bundle: Path, given: Sequence[Path] = ()) -> list[Path]:
    """The files that a bundle was made from, in the manifest's order.

    Args:
        manifest: names the sources and their hashes.
        bundle: the bundle's folder.
        given: files, and folders to look into; then the working folder and the bundle's are
            searched, and the folders in them.

    Raises:
        CheckpointError: a file that was given is none of the bundle's sources, or is not there.
        BundleError: a source is nowhere to be found.
    """
    sources = (manifest.source, *manifest.further_sources)
    files = [path for path in given if not path.is_dir()]
    hashes = {_hash_of(path): path for path in files}
    for found, path in hashes.items():
        if found not in {source.sha256 for source in sources}:
            names = ", ".join(f"{s.file_name}, {s.sha256[:12]}..." for s in sources)
            raise CheckpointError(
                f"{path} is not what the bundle was exported from (SHA-256 {found[:12]}..., "
                f"expected {names})"
            )
    folders = [*(path for path in given if path.is_dir()), Path.cwd(), bundle.resolve().parent]
    return [hashes.get(s.sha256) or _search(s, folders, bundle) for s in sources]


def _hash_of(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; check the path of the source"
        ) from None


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    yield from sorted(folder.glob(f"*/{glob.escape(name)}"))


def _search(source: Source, folders: Sequence[Path], bundle: Path) -> Path:
    name = Path(source.file_name).name
    for folder in folders:
        for candidate in _candidates(folder, name):
            if candidate.is_file() and file_sha256(candidate) == source.sha256:
                return candidate
    places = " nor in ".join(dict.fromkeys(str(folder) for folder in folders))
    raise BundleError(
        f"the source {name} of {bundle} (by its hash) is neither in {places}; give it with --source"
    )
