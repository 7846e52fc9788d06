"""Finding the build that fits, or saying what keeps the others from it and what makes one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyninfer.builds.spec import (
    BUILD_FILE,
    ENGINES_FOLDER,
    FIRST_COMPATIBLE,
    FOR_OPENVINO,
    HARDWARE_COMPATIBLE,
    SCHEMA_VERSION,
    VERSION_COMPATIBLE,
    Build,
    BuildSpec,
    OpenBuild,
    describe_plan,
    made_for_openvino,
    source_hashes,
    travel_of,
)
from dyninfer.bundle.documents import read_sealed
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import check_file, inside
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.shipped import typed
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import BundleError

_REMEDY = "build it again with dyninfer build --force"
_NEXT_MAJOR: dict[tuple[int, ...], tuple[int, ...]] = {(8,): (10,), (10,): (11,)}
"""Which opens the version-compatible engines of another major version (TensorRT 11's matrix)."""


@dataclass(frozen=True)
class Difference:
    """A field of two specifications that keeps a build from being used."""

    field: str
    built: str
    wanted: str


def differences(built: BuildSpec, wanted: BuildSpec) -> list[Difference]:
    """What keeps a build from being used where ``wanted`` is asked for; nothing if it can be.

    An engine that was built without a GPU is good for every GPU of its compute capabilities; one
    that was built on a GPU needs the same GPU. Either may have been built to be good
    for more (:data:`VERSION_COMPATIBLE`, :data:`HARDWARE_COMPATIBLE`). A batch range holds if it
    covers the one that is wanted; an option that nobody asks for does no harm, nor do stages in
    int8 that were made for the other backend of a CPU.
    """
    needed = {name: value for name, value in wanted.options.items() if name != FOR_OPENVINO}
    fits = {
        "backend": built.backend == wanted.backend,
        "library_version": _covers_version(built, wanted),
        "target": _covers_target(built, wanted),
        "batch": _covers_batch(built.batch, wanted.batch),
        "precision": built.precision == wanted.precision,
        "stages_sha256": built.stages_sha256 == wanted.stages_sha256,
        "options": needed.items() <= built.options.items(),
    }
    return [
        Difference(field, _shown(getattr(built, field)), _shown(getattr(wanted, field)))
        for field, fit in fits.items()
        if not fit
    ]


def _covers_version(built: BuildSpec, wanted: BuildSpec) -> bool:
    if VERSION_COMPATIBLE not in built.options:
        return built.library_version == wanted.library_version
    ours, theirs = _numbers(wanted.library_version), _numbers(built.library_version)
    majors = {theirs[:1], _NEXT_MAJOR.get(theirs[:1])}
    return ours >= theirs and ours[:1] in majors


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version or ""))


def _covers_target(built: BuildSpec, wanted: BuildSpec) -> bool:
    have, want = built.target, wanted.target
    if have is None or want is None or have == want:
        return have == want
    if have.system != want.system:
        return False
    if HARDWARE_COMPATIBLE in built.options:
        return all(_numbers(c) >= FIRST_COMPATIBLE for c in want.compute_capabilities)
    return have.gpu_name is None and set(want.compute_capabilities) <= set(
        have.compute_capabilities
    )


def _covers_batch(built: BatchProfile | None, wanted: BatchProfile | None) -> bool:
    if built is None or wanted is None:
        return built == wanted
    return built.minimum <= wanted.minimum and built.maximum >= wanted.maximum


def _shown(value: Any) -> str:
    """A field's value, short enough to stand beside another one."""
    if value is None:
        return "-"
    if not isinstance(value, Mapping):
        return str(value)
    entries = {k: str(getattr(v, "value", v)) for k, v in value.items()}
    if all(re.fullmatch("[0-9a-f]{64}", entry) for entry in entries.values()):
        entries = {name: entry[:8] for name, entry in entries.items()}
    elif len(set(entries.values())) == 1:
        return next(iter(entries.values()))
    return ", ".join(f"{name}={entry}" for name, entry in entries.items()) or "-"


def read_build(path: Path) -> Build:
    """Read and validate the ``build.json`` of a build's folder.

    Raises:
        BundleError: it is missing, was changed, or is not what its folder's name says.
    """
    record = inside(path.parent.parent, f"{ENGINES_FOLDER}/{path.name}/{BUILD_FILE}")
    build = read_sealed(record, Build, _REMEDY, SCHEMA_VERSION)
    if path.name != build.spec.folder_name:
        raise BundleError(
            f"{path} holds the build {build.spec.folder_name}, expected the one that the folder "
            f"is named after; {_REMEDY}"
        )
    return build


def list_builds(bundle: Bundle) -> tuple[dict[Path, Build], list[BundleError]]:
    """All builds of a bundle by folder, and what is wrong with those that cannot be read."""
    found: dict[Path, Build] = {}
    broken: list[BundleError] = []
    for folder in sorted(inside(bundle.path, ENGINES_FOLDER).glob("*")):
        if folder.name.startswith(".") or not folder.is_dir():
            continue  # one that is being written, or what was measured of several
        try:
            found[folder] = read_build(folder)
        except BundleError as error:
            broken.append(error)
    return found, broken


def find_build(bundle: Bundle, wanted: BuildSpec) -> OpenBuild | None:
    """The build that fits best, with every file checked; None where none fits.

    One that was made for this backend comes first; then one that has passed a gate, whatever its
    stages fell back to, one whose tensors travel in fewer bytes, the very one that was asked for,
    one for this GPU before one for its kind, and the smaller range of batches.

    Raises:
        BundleError: a file of the one that fits is missing or was changed.
    """
    best = preferred_build(bundle, wanted)
    return None if best is None else open_build(*best)


def preferred_build(bundle: Bundle, wanted: BuildSpec) -> tuple[Path, Build] | None:
    """What :func:`find_build` opens, without a look at its files."""
    builds, _ = list_builds(bundle)
    fitting = [
        found
        for found in builds.items()
        if not differences(found[1].offered(wanted.precision), wanted)
    ]
    return min(fitting, key=lambda found: _preference(found[1], wanted), default=None)


def find_exact(bundle: Bundle, spec: BuildSpec) -> OpenBuild | None:
    """The build with this very fingerprint, with every file checked, or None."""
    folder = inside(bundle.path, f"{ENGINES_FOLDER}/{spec.folder_name}")
    return open_build(folder, read_build(folder)) if folder.exists() else None


def made_for_others(build: Build, wanted: BuildSpec) -> frozenset[str]:
    """The stages that were to be in int8 for another backend than is wanted."""
    asked = build.gate.asked if build.gate else build.spec.precision
    ours = frozenset(name for name, p in asked.items() if p is Precision.INT8)
    return ours & (made_for_openvino(wanted) ^ made_for_openvino(build.spec))


def _preference(build: Build, wanted: BuildSpec) -> tuple[int, bool, int, bool, bool, int, str]:
    spec = build.spec
    return (
        len(made_for_others(build, wanted)),
        build.gate is None,
        -len(travel_of(spec)),
        spec != wanted,
        spec.target is not None and spec.target.gpu_name is None,
        spec.batch.maximum if spec.batch else 0,
        spec.fingerprint,
    )


def open_build(path: Path, build: Build) -> OpenBuild:
    """A build whose files are all there and unchanged.

    Raises:
        BundleError: a file is missing, was changed, or is a link.
    """
    checked = {}
    for name, stage in build.stages.items():
        for file in (stage.onnx, stage.engine):
            if file is not None:  # the engine is what is opened, where there is one
                place = f"{ENGINES_FOLDER}/{path.name}/{file.file}"
                bundle = path.parent.parent
                checked[name] = check_file(bundle, place, file.sha256, "it was built", _REMEDY)
    return OpenBuild(path, build, checked)


def nearest_build(bundle: Bundle, wanted: BuildSpec) -> Build | None:
    """The build that differs in the fewest fields, for a message; None where there is none."""
    builds, _ = list_builds(bundle)
    return min(
        builds.values(),
        key=lambda build: (len(differences(build.spec, wanted)), build.spec.fingerprint),
        default=None,
    )


def describe_differences(built: BuildSpec, wanted: BuildSpec) -> str:
    """Both fingerprints, and every field that differs, in one line."""
    fields = "; ".join(
        f"{d.field}: built {d.built}, wanted {d.wanted}" for d in differences(built, wanted)
    )
    return f"the nearest build is {built.folder_name}, expected {wanted.folder_name}: {fields}"


def find_converted(
    bundle: Bundle,
    precision: Mapping[str, Precision],
    fits: Callable[[BuildSpec], bool],
) -> OpenBuild | None:
    """A build with this precision of this bundle's files, whatever its version and device.

    Its converted ONNX files can be built again for another device without the pictures that
    they were made with, if the build ``fits``: what int8 looks like depends on the backend.
    """
    builds, _ = list_builds(bundle)
    for path, build in builds.items():
        same = build.spec.stages_sha256 == source_hashes(bundle.manifest)
        if same and build.spec.precision == precision and fits(build.spec):
            return open_build(path, build)
    return None


def build_command(bundle: Bundle, wanted: BuildSpec) -> str:
    """The command that makes a build."""
    backend = "openvino" if FOR_OPENVINO in wanted.options else wanted.backend
    parts = [f"dyninfer build {typed(bundle.path)} --backend {backend}"]
    if wanted.target is not None and wanted.target.gpu_name is None:
        devices = (f"sm{c.replace('.', '')}" for c in wanted.target.compute_capabilities)
        parts.append(f"--for {','.join(devices)}")
    if wanted.batch is not None:
        parts.append(f"--batch {wanted.batch}")
    parts.append(f"--precision {describe_plan(wanted.precision, bundle.manifest)}")
    parts += [f"--{name} {value}" for name, value in travel_of(wanted).items()]
    if Precision.INT8 in wanted.precision.values():
        parts.append("--images FOLDER")
    return " ".join(parts)


def refusal(bundle: Bundle, wanted: BuildSpec) -> str:
    """Why no build fits, with both fingerprints field by field, and the command that makes one."""
    nearest = nearest_build(bundle, wanted)
    if nearest is not None:
        reason = describe_differences(nearest.spec, wanted)
    else:
        _, broken = list_builds(bundle)
        reason = str(broken[0]) if broken else "it has no builds yet"
    return (
        f"no build of {bundle.path} fits, and building was not allowed: {reason}; "
        f"run: {build_command(bundle, wanted)}"
    )
