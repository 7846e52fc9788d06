"""Doing what ``dyninfer build`` was asked for: what is wanted, converting, building."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from dyninfer.builds.choice import refusal
from dyninfer.builds.files import Converted, make_build
from dyninfer.builds.precisions import parse_precision
from dyninfer.builds.search import (
    differences,
    find_build,
    find_converted,
    find_exact,
    nearest_build,
)
from dyninfer.builds.spec import (
    BatchProfile,
    BuildSpec,
    BuildTarget,
    OpenBuild,
    own_precision,
    source_hashes,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.cli.build_convert import convert_stages, same_conversion
from dyninfer.cli.build_request import BackendChoice, Request
from dyninfer.cli.common import progress_bar, stderr
from dyninfer.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from dyninfer.engines.trt.builder import Active, EngineOptions
    from dyninfer.engines.trt.cuda import Cuda
    from dyninfer.engines.trt.library import Library
    from dyninfer.engines.trt.targets import Preset


@dataclass(frozen=True)
class Found:
    """Whether a build fits, and if not, what the nearest one differs in."""

    wanted: BuildSpec
    build: OpenBuild | None
    nearest: str | None = None
    differences: list[dict[str, str]] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True)
class _TensorRT:
    """What a build with TensorRT needs beside its specification."""

    library: Library
    options: EngineOptions
    active: Active


def check_build(request: Request) -> Found:
    """Whether there is a build that fits, without making one."""
    bundle = Bundle.open(request.path)
    wanted, _ = _wanted(request, bundle)
    opened = find_build(bundle, wanted)
    if opened is not None:
        return Found(wanted, opened)
    nearest = nearest_build(bundle, wanted)
    return Found(
        wanted,
        None,
        None if nearest is None else nearest.spec.folder_name,
        [] if nearest is None else [asdict(d) for d in differences(nearest.spec, wanted)],
        refusal(bundle, wanted),
    )


def run_build(request: Request) -> tuple[OpenBuild, bool]:
    """The build that was asked for, and whether it is new.

    Raises:
        DyninferError: it cannot be made; nothing half-made stays behind.
    """
    bundle = Bundle.open(request.path)
    wanted, tensorrt = _wanted(request, bundle)
    if not request.force:
        existing = find_exact(bundle, wanted)
        if existing and same_conversion(request, bundle, existing.build.conversion):
            return existing, False
    with tempfile.TemporaryDirectory(prefix="dyninfer-") as folder, progress_bar() as progress:
        converted = None
        if not (tensorrt and not request.images and _was_converted(bundle, wanted)):
            converted = convert_stages(request, bundle, wanted.precision, Path(folder), progress)
        return _make(request, bundle, wanted, tensorrt, converted, progress), True


def _was_converted(bundle: Bundle, wanted: BuildSpec) -> bool:
    """Whether an earlier build with TensorRT has these stages, so that no pictures are needed."""
    from dyninfer.engines import TENSORRT

    own = own_precision(bundle.manifest)
    return wanted.precision != own and bool(find_converted(bundle, wanted.precision, TENSORRT))


def _wanted(request: Request, bundle: Bundle) -> tuple[BuildSpec, _TensorRT | None]:
    manifest = bundle.manifest
    plan = (
        own_precision(manifest)
        if request.precision is None
        else parse_precision(request.precision, manifest)
    )
    if request.backend is BackendChoice.ONNXRUNTIME:
        _refuse_tensorrt_options(request)
        if plan == own_precision(manifest):
            raise InputError(
                "ONNX Runtime opens a bundle's own files as they are; give another precision to "
                "convert them to, such as --precision int8"
            )
        spec = BuildSpec(
            backend="onnxruntime", precision=plan, stages_sha256=source_hashes(manifest)
        )
        return spec, None
    from dyninfer.engines.trt.bundle_build import build_spec

    tensorrt, target = _prepare_tensorrt(request)
    spec = build_spec(tensorrt.library, manifest, plan, target, tensorrt.options)
    return spec, tensorrt


def _refuse_tensorrt_options(request: Request) -> None:
    given = {
        "--for": request.devices,
        "--workspace": request.workspace_bytes,
        "--timing-cache": request.timing_cache,
        "--version-compatible": request.version_compatible,
        "--hardware-compatible": request.hardware_compatible,
    }
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise typer.BadParameter(f"{', '.join(wrong)} go with TensorRT, not with onnxruntime")


def _prepare_tensorrt(request: Request) -> tuple[_TensorRT, BuildTarget]:
    """Library, options and target; every check that can be made before any work is done."""
    from dyninfer.engines.trt.builder import EngineOptions, check_options
    from dyninfer.engines.trt.library import Flavour, load_library
    from dyninfer.engines.trt.targets import check_for, find_presets

    presets = [] if request.devices is None else find_presets(request.devices)
    batch = BatchProfile.parse(request.batch)
    library = load_library(Flavour(request.backend.value))
    check_for(presets, library)
    target, cuda = _target(request, library, presets)
    options = EngineOptions(
        batch=batch,
        workspace_bytes=request.workspace_bytes,
        timing_cache=request.timing_cache,
        version_compatible=request.version_compatible,
        hardware_compatible=request.hardware_compatible,
    )
    check_options(library, options)
    return _TensorRT(library, options, nullcontext if cuda is None else cuda.active), target


def _target(
    request: Request, library: Library, presets: list[Preset]
) -> tuple[BuildTarget, Cuda | None]:
    """What to build for: ``--for``, this machine's GPU, or with TensorRT-RTX all from Ampere on."""
    from dyninfer.engines.trt.bundle_build import device_target, dotted
    from dyninfer.engines.trt.cuda import open_cuda
    from dyninfer.engines.trt.targets import check_here

    if library.compute_capabilities and presets:
        chosen = tuple(dict.fromkeys(preset.compute_capability for preset in presets))
        return BuildTarget(compute_capabilities=chosen), None
    try:
        cuda = open_cuda(_device_number(request.device))
    except BackendUnavailable:
        if not library.compute_capabilities:
            raise
        ampere_on = tuple(c for c in library.compute_capabilities if float(c) >= 8)
        return BuildTarget(compute_capabilities=ampere_on), None
    check_here(presets, cuda.properties.name, dotted(cuda.properties))
    return device_target(library, cuda.properties), cuda


def _device_number(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise typer.BadParameter(f"--device is {device!r}, expected cuda:0 for the first GPU")
    return int(number or "0")


def _make(
    request: Request,
    bundle: Bundle,
    wanted: BuildSpec,
    tensorrt: _TensorRT | None,
    converted: Converted | None,
    progress: Progress,
) -> OpenBuild:
    replace = request.force or bool(request.images)
    if tensorrt is None:
        assert converted is not None
        return make_build(bundle, wanted, converted, replace=replace, on_wait=_say_waiting)
    from dyninfer.engines.trt.bundle_build import build_bundle

    return build_bundle(
        tensorrt.library,
        bundle,
        wanted,
        tensorrt.options,
        converted,
        rebuild=replace,
        report=_stage_bars(bundle, progress),
        active=tensorrt.active,
        on_wait=_say_waiting,
    )


def _say_waiting() -> None:
    stderr.print("another process is building in this bundle; waiting for it to end")


def _stage_bars(bundle: Bundle, progress: Progress) -> Callable[[str, float, str], None]:
    """One bar for each stage, in percent."""
    bars: Mapping[str, TaskID] = {
        name: progress.add_task(f"{escape(name)}", total=100, start=False)
        for name in bundle.manifest.stages
    }
    started: set[str] = set()

    def report(stage: str, share: float, _phase: str) -> None:
        if stage not in started:
            started.add(stage)
            progress.start_task(bars[stage])
        progress.update(bars[stage], completed=round(100 * share))

    return report
