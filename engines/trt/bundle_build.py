"""A whole bundle to TensorRT engines: which build it is, and making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from dyninfer.builds.files import NOTHING_CONVERTED, Converted, make_build
from dyninfer.builds.search import find_converted
from dyninfer.builds.spec import (
    HARDWARE_COMPATIBLE,
    VERSION_COMPATIBLE,
    BatchProfile,
    BuildSpec,
    BuildTarget,
    OpenBuild,
    own_precision,
    source_hashes,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines.base import build_command
from dyninfer.engines.trt.builder import (
    Active,
    EngineOptions,
    StageFile,
    build_engine,
    check_options,
)
from dyninfer.engines.trt.cuda import DeviceProperties
from dyninfer.engines.trt.library import Flavour, Library
from dyninfer.errors import EngineBuildError

USUAL_BATCH = 4
FLAVOURS = tuple(flavour.value for flavour in Flavour)
StageReport = Callable[[str, float, str], None]
"""(stage; share of it that is done, in [0, 1]; the builder's phase)."""


def default_batch(max_batch: int) -> BatchProfile:
    """From one image to the most there may be; fastest for a few."""
    return BatchProfile(minimum=1, optimum=min(USUAL_BATCH, max_batch), maximum=max_batch)


def dotted(properties: DeviceProperties) -> str:
    """A GPU's compute capability as "8.6"."""
    major, minor = properties.compute_capability
    return f"{major}.{minor}"


def device_target(library: Library, properties: DeviceProperties) -> BuildTarget:
    """The GPU of this machine as a target.

    TensorRT-RTX compiles for a kind of GPU and leaves the rest to the moment an engine is opened,
    so that name and driver do not matter to it.
    """
    capabilities = (dotted(properties),)
    if library.compute_capabilities:
        return BuildTarget(compute_capabilities=capabilities)
    return BuildTarget(
        compute_capabilities=capabilities, gpu_name=properties.name, driver=properties.driver
    )


def build_spec(
    library: Library,
    manifest: Manifest,
    precision: Mapping[str, Precision],
    target: BuildTarget,
    options: EngineOptions,
) -> BuildSpec:
    """What a build is, for its fingerprint."""
    chosen = {}
    if options.workspace_bytes is not None:
        chosen["workspace_bytes"] = str(options.workspace_bytes)
    if options.version_compatible:
        chosen[VERSION_COMPATIBLE] = "yes"
    if options.hardware_compatible:
        chosen[HARDWARE_COMPATIBLE] = "yes"
    return BuildSpec(
        backend=library.flavour.value,
        library_version=library.version,
        target=target,
        batch=options.batch,
        precision=precision,
        stages_sha256=source_hashes(manifest),
        options=chosen,
    )


def device_spec(
    library: Library,
    properties: DeviceProperties,
    manifest: Manifest,
    precision: Mapping[str, Precision],
    max_batch: int,
) -> BuildSpec:
    """The build that a backend on this machine's GPU wants."""
    options = EngineOptions(default_batch(max_batch))
    return build_spec(library, manifest, precision, device_target(library, properties), options)


def build_bundle(
    library: Library,
    bundle: Bundle,
    spec: BuildSpec,
    options: EngineOptions,
    converted: Converted | None = None,
    *,
    rebuild: bool = False,
    report: StageReport = lambda _stage, _share, _phase: None,
    active: Active = nullcontext,
    on_wait: Callable[[], None] = lambda: None,
) -> OpenBuild:
    """Build every stage, or take this very build if it is there.

    Args:
        library: to build with.
        bundle: to build.
        spec: of :func:`build_spec` or :func:`device_spec`.
        options: as they were given to it; the GPUs to build for are those of ``spec``.
        converted: stages in another precision than the bundle's; None to take them from any
            build that has them.
        rebuild: build even if there is this very build.
        report: told of the progress, from another thread.
        active: makes the GPU to build on the current one, as :meth:`Cuda.active` does.
        on_wait: called once if another process is building in this bundle.

    Raises:
        EngineBuildError: a stage cannot be built, or its conversion is not there.
    """
    check_options(library, options)
    options = replace(options, compute_capabilities=_capabilities(library, spec))
    files = converted if converted is not None else _earlier_conversion(bundle, spec)

    def make_engine(name: str, onnx: Path) -> bytes:
        source = StageFile(name, bundle.manifest.stages[name], spec.precision[name], onnx)
        return build_engine(
            library, source, options, lambda share, phase: report(name, share, phase), active
        )

    return make_build(bundle, spec, files, make_engine, replace=rebuild, on_wait=on_wait)


def _capabilities(library: Library, spec: BuildSpec) -> tuple[str, ...]:
    """What the library is told to build for; nothing where it builds for the GPU that is here.

    A GPU that it does not list may still run what it builds by default.
    """
    wanted = spec.target.compute_capabilities if spec.target else ()
    return tuple(c for c in wanted if c in library.compute_capabilities)


def _earlier_conversion(bundle: Bundle, spec: BuildSpec) -> Converted:
    """What an earlier build has converted, for instance for another driver or by another version.

    Raises:
        EngineBuildError: a stage needs a conversion and none was made yet.
    """
    if dict(spec.precision) == own_precision(bundle.manifest):
        return NOTHING_CONVERTED
    found = find_converted(bundle, spec.precision, FLAVOURS)
    if found is None:
        raise EngineBuildError(
            f"{bundle.path} holds no stages in the precision that is wanted; convert and build "
            f"them with: {build_command(bundle, spec)}"
        )
    paths = {name: found.onnx_path(name) for name in bundle.manifest.stages}
    files = {name: path for name, path in paths.items() if path is not None}
    return Converted(files, found.build.conversion, found.parity())
