"""Doing what ``dyninfer build`` was asked for: what is wanted, converting, building."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import typer
from rich.progress import Progress, TaskID

from dyninfer.builds.builder import Builder, ConversionBuilder
from dyninfer.builds.files import (
    NOTHING_CONVERTED,
    Converted,
    Making,
    StageReport,
    check_writable,
)
from dyninfer.builds.search import find_build, find_exact
from dyninfer.builds.signature import check_build
from dyninfer.builds.spec import (
    BuildSpec,
    BuildTarget,
    Conversion,
    OpenBuild,
    describe_plan,
    own_precision,
    plan_precision,
    this_system,
    travel_of,
)
from dyninfer.builds.tensorrt import TensorRTBuilder, device_target
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.signature import check_bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.cli.build_conversions import COMPARING, Conversions, asked_samples, travelling
from dyninfer.cli.build_gate import GatedBuild, asked_limits, find_passed
from dyninfer.cli.build_options import BuildOptions
from dyninfer.cli.common import progress_bar, stderr, warn
from dyninfer.engines.trt.builder import Active, EngineOptions
from dyninfer.engines.trt.library import Flavour, Library, installed_flavour, load_library
from dyninfer.engines.trt.targets import BatchProfile, Preset, check_for, check_here, find_presets
from dyninfer.errors import BackendUnavailable, InputError


def plan_build(path: Path, asked: BuildOptions) -> tuple[Bundle, Builder, BuildSpec]:
    """Which build is wanted, and who makes it; checked as far as it can be before any work."""
    bundle = Bundle.open(path)
    if asked.trusted_key is not None:
        check_bundle(bundle, Path(asked.trusted_key))
    precision = plan_precision(asked.precision, bundle.manifest)
    if Precision.BF16 in precision.values():
        raise InputError(
            "bf16 needs no build: OpenVINO computes in it with the bundle's own files, for example "
            f"dyninfer predict {path} PICTURES --backend openvino --precision bf16"
        )
    batch = asked.profile
    builder = _builder(asked, batch, precision)
    wanted = builder.wanted(bundle.manifest, precision, batch.maximum)
    if wanted is None:
        own = describe_plan(precision, bundle.manifest)
        hint = (
            "give another precision to convert them to, such as --precision int8"
            if set(precision.values()) == {Precision.FP32}
            else "there is nothing to build"
        )
        raise InputError(
            f"{path} is in {own} already, and ONNX Runtime opens a bundle's own files as they are: "
            f"{hint}"
        )
    return bundle, builder, wanted


def run_build(path: Path, asked: BuildOptions) -> tuple[OpenBuild, bool]:
    """The build that was asked for, and whether it is new; nothing half-made stays behind."""
    bundle, builder, wanted = plan_build(path, asked)
    limits = asked_limits(asked, bundle)
    images = asked.images
    if not asked.force:
        existing = (
            find_exact(bundle, wanted)
            if limits is None
            else find_passed(asked, bundle, wanted, limits)
        )
        if existing and _same_conversion(asked, bundle, existing.build.conversion):
            check_found(existing, asked)
            return existing, False
    check_writable(bundle)
    with scratch_folder() as folder, progress_bar(remaining=True) as progress:
        making = Making(
            replace=asked.force or bool(images),
            report=_stage_bars(bundle, progress),
            on_wait=lambda: stderr.print(
                "another process is building in this bundle; waiting for it to end"
            ),
        )
        if limits is not None:
            conversions = Conversions(asked, bundle, wanted, folder, progress)
            gated = GatedBuild(conversions, builder, wanted, limits, replace(making, replace=True))
            return gated.make(), True
        converted = None if images else builder.converted(bundle, wanted.precision)
        if converted is None:
            converted = _convert(asked, bundle, wanted, folder, progress)
            converted = travelling(bundle, travel_of(wanted), converted, folder)
        made = builder.make(bundle, wanted, replace(making, converted=converted))
    _tell_before(bundle, wanted, made)
    return made, True


def _tell_before(bundle: Bundle, wanted: BuildSpec, made: OpenBuild) -> None:
    """Say which build is opened in place of the one that was made."""
    found = find_build(bundle, wanted)
    if found is None or found.path == made.path:
        return
    why = "which fits more closely"
    if found.build.gate is not None:
        why = "which has passed a gate"
    elif len(travel_of(found.build.spec)) > len(travel_of(made.build.spec)):
        why = "whose tensors travel in fewer bytes"
    warn(
        f"what opens with this precision is {found.path}, {why}, before {made.path}; remove the "
        "former to use the latter"
    )


def check_found(existing: OpenBuild, asked: BuildOptions) -> None:
    """Refuse a build that is there and not signed, as :func:`dyninfer.load` would."""
    if asked.trusted_key is not None:
        check_build(existing, Path(asked.trusted_key))


def _builder(
    asked: BuildOptions, batch: BatchProfile, precision: Mapping[str, Precision]
) -> Builder:
    if asked.on_host:
        asked.refuse_engine_options()
        assert asked.backend is not None, "it is on the host"
        backend = asked.backend.value
        return ConversionBuilder(asked.travel(precision), lambda _stage: backend)
    presets = [] if asked.for_ is None else find_presets(asked.for_)
    flavour = Flavour(asked.backend.value) if asked.backend else installed_flavour()
    library = load_library(flavour)
    check_for(presets, library)
    travel = asked.travel(precision, library)
    target, active = _target(asked.device, library, presets)
    options = EngineOptions(
        batch=batch,
        workspace_bytes=asked.workspace,
        timing_cache=asked.timing_cache,
        version_compatible=asked.version_compatible,
        hardware_compatible=asked.hardware_compatible,
    )
    return TensorRTBuilder(library, target, options, active, travel)


def _target(device: str, library: Library, presets: list[Preset]) -> tuple[BuildTarget, Active]:
    """What to build for: ``--for``, this machine's GPU, or with TensorRT-RTX all from Ampere on.

    With it comes what makes the GPU to build on the current one.
    """
    from dyninfer.engines.trt.cuda import open_cuda

    if library.compute_capabilities and presets:
        chosen = tuple(dict.fromkeys(preset.compute_capability for preset in presets))
        return BuildTarget(compute_capabilities=chosen, system=this_system()), nullcontext
    try:
        cuda = open_cuda(_device_number(device))
    except BackendUnavailable:
        if not library.compute_capabilities:
            raise
        ampere_on = tuple(c for c in library.compute_capabilities if float(c) >= 8)
        return BuildTarget(compute_capabilities=ampere_on, system=this_system()), nullcontext
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
        name: progress.add_task(name, total=100, start=False, visible=False)
        for name in bundle.manifest.stages
    }

    def report(stage: str, share: float, _phase: str) -> None:
        progress.start_task(bars[stage])
        progress.update(bars[stage], completed=round(100 * share), visible=True)

    return report


def _convert(
    asked: BuildOptions,
    bundle: Bundle,
    wanted: BuildSpec,
    folder: Path,
    progress: Progress,
) -> Converted:
    """The stages in the precision that is wanted, as files in ``folder``, and what that costs."""
    plan = wanted.precision
    if dict(plan) == own_precision(bundle.manifest):
        return NOTHING_CONVERTED
    conversions = Conversions(asked, bundle, wanted, folder, progress)
    conversions.show_whole(plan)
    made = conversions.make(plan)
    return conversions.converted(made, conversions.measure(made, COMPARING))


def _same_conversion(asked: BuildOptions, bundle: Bundle, conversion: Conversion | None) -> bool:
    """Whether a conversion was made as it would be now; without pictures, any is good enough."""
    if conversion is None or not asked.images:
        return True
    same_method = conversion.method in (None, asked.method.value)
    return same_method and conversion.images_sha256 == asked_samples(asked, bundle).sha256()
