"""Which build a detector opens: the one that fits, one made now, or a refusal that explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dyninfer.builds.precisions import parse_precision
from dyninfer.builds.search import (
    describe_differences,
    find_build,
    list_builds,
    nearest_build,
)
from dyninfer.builds.spec import BuildSpec, OpenBuild, own_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.engines.base import Backend, build_command
from dyninfer.errors import EngineBuildError


def choose_build(
    bundle: Bundle,
    backend: Backend[Any, Any],
    precision: str | None,
    max_batch: int,
    *,
    may_build: bool,
    checked: Callable[[], None] = lambda: None,
) -> OpenBuild | None:
    """The build to open a bundle with, or None if its own ONNX files will do.

    Args:
        bundle: to be opened.
        backend: that opens it.
        precision: as ``dyninfer build --precision`` takes it; None for the bundle's own.
        max_batch: the most images that will be run at once.
        may_build: make the build if there is none that fits.
        checked: returns once the bundle's own files are known to be as they were exported, which
            a build must not be made or used without.

    Raises:
        InputError: the precision cannot be understood.
        BundleError: a file of the build that fits was changed.
        EngineBuildError: there is none that fits, and it may not or cannot be made here.
    """
    manifest = bundle.manifest
    plan: Mapping[str, Precision] = (
        own_precision(manifest) if precision is None else parse_precision(precision, manifest)
    )
    wanted = backend.wanted_build(manifest, plan, max_batch)
    if wanted is None:
        return None
    checked()
    found = find_build(bundle, wanted)
    if found is not None:
        return found
    if may_build:
        return backend.make_build(bundle, wanted)
    raise EngineBuildError(refusal(bundle, wanted))


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
