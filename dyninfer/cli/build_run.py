"""Doing what ``dyninfer build`` was asked for: what is wanted, converting, building."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from dyninfer.builds.builder import Builder, ConversionBuilder, Making, StageReport
from dyninfer.builds.search import find_exact
from dyninfer.builds.spec import BuildSpec, BuildTarget, OpenBuild, plan_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.cli.build_convert import convert_stages, same_conversion
from dyninfer.cli.build_request import BackendChoice, Request, parse_bytes
from dyninfer.cli.common import progress_bar, stderr
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from dyninfer.engines.trt.builder import Active
    from dyninfer.engines.trt.library import Library
    from dyninfer.engines.trt.targets import Preset


def plan_build(request: Request) -> tuple[Bundle, Builder, BuildSpec]:
    """Which build is wanted, and who makes it; checked as far as it can be before any work.

    Raises:
        DyninferError: bundle, library and GPU do not allow it.
    """
    bundle = Bundle.open(request.path)
    precision = plan_precision(request.build.precision, bundle.manifest)
    batch = BatchProfile.parse(request.engines.batch)
    builder = _builder(request, batch)
    wanted = builder.wanted(bundle.manifest, precision, batch.maximum)
    if wanted is None:
        raise InputError(
            "ONNX Runtime opens a bundle's own files as they are; give another precision to "
            "convert them to, such as --precision int8"
        )
    return bundle, builder, wanted


def run_build(request: Request) -> tuple[OpenBuild, bool]:
    """The build that was asked for, and whether it is new.

    Raises:
        DyninferError: it cannot be made; nothing half-made stays behind.
    """
    bundle, builder, wanted = plan_build(request)
    images = request.pictures.images
    if not request.build.force:
        existing = find_exact(bundle, wanted)
        if existing and same_conversion(request.pictures, bundle, existing.build.conversion):
            return existing, False
    with tempfile.TemporaryDirectory(prefix="dyninfer-") as folder, progress_bar() as progress:
        converted = None if images else builder.converted(bundle, wanted.precision)
        if converted is None:
            converted = convert_stages(request, bundle, wanted.precision, Path(folder), progress)
        making = Making(
            converted=converted,
            replace=request.build.force or bool(images),
            report=_stage_bars(bundle, progress),
            on_wait=lambda: stderr.print(
                "another process is building in this bundle; waiting for it to end"
            ),
        )
        return builder.make(bundle, wanted, making), True


def _builder(request: Request, batch: BatchProfile) -> Builder:
    if request.build.backend is BackendChoice.ONNXRUNTIME:
        request.engines.refuse()
        return ConversionBuilder()
    from dyninfer.builds.tensorrt import TensorRTBuilder
    from dyninfer.engines.trt.builder import EngineOptions
    from dyninfer.engines.trt.library import Flavour, load_library
    from dyninfer.engines.trt.targets import check_for, find_presets

    engines = request.engines
    presets = [] if engines.for_ is None else find_presets(engines.for_)
    library = load_library(Flavour(request.build.backend.value))
    check_for(presets, library)
    target, active = _target(request.build.device, library, presets)
    options = EngineOptions(
        batch=batch,
        workspace_bytes=None if engines.workspace is None else parse_bytes(engines.workspace),
        timing_cache=engines.timing_cache,
        version_compatible=engines.version_compatible,
        hardware_compatible=engines.hardware_compatible,
    )
    return TensorRTBuilder(library, target, options, active)


def _target(device: str, library: Library, presets: list[Preset]) -> tuple[BuildTarget, Active]:
    """What to build for: ``--for``, this machine's GPU, or with TensorRT-RTX all from Ampere on.

    With it comes what makes the GPU to build on the current one.
    """
    from dyninfer.builds.tensorrt import device_target
    from dyninfer.engines.trt.cuda import open_cuda
    from dyninfer.engines.trt.targets import check_here

    if library.compute_capabilities and presets:
        chosen = tuple(dict.fromkeys(preset.compute_capability for preset in presets))
        return BuildTarget(compute_capabilities=chosen), nullcontext
    try:
        cuda = open_cuda(_device_number(device))
    except BackendUnavailable:
        if not library.compute_capabilities:
            raise
        ampere_on = tuple(c for c in library.compute_capabilities if float(c) >= 8)
        return BuildTarget(compute_capabilities=ampere_on), nullcontext
    check_here(presets, cuda.properties.name, cuda.properties.capability)
    return device_target(library, cuda.properties), cuda.active


def _device_number(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise typer.BadParameter(f"--device is {device!r}, expected cuda:0 for the first GPU")
    return int(number or "0")


def _stage_bars(bundle: Bundle, progress: Progress) -> StageReport:
    """One bar for each stage, in percent, shown once the stage has begun."""
    bars: Mapping[str, TaskID] = {
        name: progress.add_task(escape(name), total=100, start=False, visible=False)
        for name in bundle.manifest.stages
    }

    def report(stage: str, share: float, _phase: str) -> None:
        progress.start_task(bars[stage])
        progress.update(bars[stage], completed=round(100 * share), visible=True)

    return report
