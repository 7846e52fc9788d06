"""Who makes builds for a backend, and which build and which files a bundle is opened with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dyninfer.builds.builder import Builder, ConversionBuilder
from dyninfer.builds.precisions import plan_precision
from dyninfer.builds.search import find_build, refusal
from dyninfer.builds.spec import OpenBuild
from dyninfer.bundle.folder import Bundle
from dyninfer.engines import TENSORRT
from dyninfer.engines.base import Backend
from dyninfer.errors import EngineBuildError


def builder_for(backend: Backend[Any, Any]) -> Builder:
    """The builder for an opened backend and its device; the only place that chooses one."""
    if backend.name not in TENSORRT:
        return ConversionBuilder()
    from dyninfer.builds.tensorrt import TensorRTBuilder
    from dyninfer.engines.trt.backend import TrtBackend

    assert isinstance(backend, TrtBackend)  # it has both names
    return TensorRTBuilder.on(backend.platform)


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

    ``precision`` is as ``dyninfer build --precision`` takes it, None for the bundle's own;
    ``max_batch`` the most images that will be run at once. ``checked`` is called before a build is
    used or made, and returns once the bundle's own files are known to be as they were exported.

    Raises:
        InputError: the precision cannot be understood.
        BundleError: a file of the build that fits was changed.
        EngineBuildError: there is none that fits, and it may not or cannot be made here.
    """
    builder = builder_for(backend)
    plan = plan_precision(precision, bundle.manifest)
    wanted = builder.wanted(bundle.manifest, plan, max_batch)
    if wanted is None:
        return None
    checked()
    found = find_build(bundle, wanted)
    if found is not None:
        return found
    if may_build:
        return builder.make(bundle, wanted)
    raise EngineBuildError(refusal(bundle, wanted))


def stage_file(bundle: Bundle, stage: str, build: OpenBuild | None) -> Path:
    """The file that a backend opens for a stage: the build's, or else the bundle's own."""
    built = None if build is None else build.stage_path(stage)
    return bundle.stage_path(stage) if built is None else built
