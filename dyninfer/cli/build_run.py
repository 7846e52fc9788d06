"""Doing what ``dyninfer build`` was asked for: what is wanted, converting, building."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from dyninfer.builds.search import find_exact
from dyninfer.builds.signature import check_build
from dyninfer.builds.spec import (
    BuildSpec,
    BuildTarget,
    Conversion,
    OpenBuild,
    describe_plan,
    own_precision,
    plan_precision,
    source_hashes,
    this_system,
)
from dyninfer.builds.tensorrt import TensorRTBuilder, device_target
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.signature import check_bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.cli.build_options import BackendChoice, BuildOptions
from dyninfer.cli.common import built_in_photos, expand_sources, progress_bar, stderr, warn
from dyninfer.engines.trt.builder import Active, EngineOptions
from dyninfer.engines.trt.library import Flavour, Library, installed_flavour, load_library
from dyninfer.engines.trt.targets import BatchProfile, Preset, check_for, check_here, find_presets
from dyninfer.errors import BackendUnavailable, InputError
from dyninfer.evaluation.dataset import Sample, Samples, load_samples
from dyninfer.exporters.extras import require_export_extra
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from dyninfer.plain_text import counted

Precisions = Mapping[str, Precision]
_FEW_PICTURES = 50
_HELD_OUT_EVERY = 5
_ENOUGH_TO_HOLD_OUT = 10


def plan_build(path: Path, asked: BuildOptions) -> tuple[Bundle, Builder, BuildSpec]:
    """Which build is wanted, and who makes it; checked as far as it can be before any work."""
    bundle = Bundle.open(path)
    if asked.trusted_key is not None:
        check_bundle(bundle, Path(asked.trusted_key))
    precision = plan_precision(asked.precision, bundle.manifest)
    batch = BatchProfile.parse(asked.batch)
    builder = _builder(asked, batch)
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
    images = asked.images
    if not asked.force:
        existing = find_exact(bundle, wanted)
        if existing and _same_conversion(asked, bundle, existing.build.conversion):
            check_found(existing, asked)
            return existing, False
    check_writable(bundle)
    with scratch_folder() as folder, progress_bar() as progress:
        converted = None if images else builder.converted(bundle, wanted.precision)
        if converted is None:
            converted = _convert(asked, bundle, wanted.precision, folder, progress)
        making = Making(
            converted=converted,
            replace=asked.force or bool(images),
            report=_stage_bars(bundle, progress),
            on_wait=lambda: stderr.print(
                "another process is building in this bundle; waiting for it to end"
            ),
        )
        return builder.make(bundle, wanted, making), True


def check_found(existing: OpenBuild, asked: BuildOptions) -> None:
    """Refuse a build that is there and not signed, as :func:`dyninfer.load` would."""
    if asked.trusted_key is not None:
        check_build(existing, Path(asked.trusted_key))


def _builder(asked: BuildOptions, batch: BatchProfile) -> Builder:
    if asked.backend is BackendChoice.ONNXRUNTIME:
        asked.refuse_engine_options()
        return ConversionBuilder()
    presets = [] if asked.for_ is None else find_presets(asked.for_)
    flavour = Flavour(asked.backend.value) if asked.backend else installed_flavour()
    library = load_library(flavour)
    check_for(presets, library)
    target, active = _target(asked.device, library, presets)
    options = EngineOptions(
        batch=batch,
        workspace_bytes=asked.workspace,
        timing_cache=asked.timing_cache,
        version_compatible=asked.version_compatible,
        hardware_compatible=asked.hardware_compatible,
    )
    return TensorRTBuilder(library, target, options, active)


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
    plan: Mapping[str, Precision],
    folder: Path,
    progress: Progress,
) -> Converted:
    """The stages in the precision that is wanted, as files in ``folder``, and what that costs."""
    if dict(plan) == own_precision(bundle.manifest):
        return NOTHING_CONVERTED
    require_export_extra("converting to fp16 or int8")
    from dyninfer.exporters.precision.convert import convert_bundle_stages
    from dyninfer.exporters.precision.measure import measure_precision

    pictures = _samples(asked, bundle)
    calibration, measured = _split(pictures)
    settings = _settings(asked, progress)
    made = convert_bundle_stages(
        bundle, plan, [sample.path for sample in calibration], folder, settings
    )
    conversion = Conversion(
        method=asked.method.value if Precision.INT8 in plan.values() else None,
        images_sha256=pictures.sha256(),
        image_count=len(calibration),
        kept_high={name: stage.kept_float for name, stage in made.items() if stage.kept_float},
    )
    own = source_hashes(bundle.manifest)
    files = {name: stage.path for name, stage in made.items() if stage.sha256 != own[name]}
    sha256 = {name: made[name].sha256 for name in files}
    task = progress.add_task("comparing with fp32", total=len(measured))
    truths = [sample.truth for sample in measured if sample.truth is not None]
    paths = [sample.path for sample in measured]
    cost = measure_precision(bundle, made, paths, truths or None, lambda: progress.advance(task))
    return Converted(files, sha256, conversion, cost.to_dict())


def _same_conversion(asked: BuildOptions, bundle: Bundle, conversion: Conversion | None) -> bool:
    """Whether a conversion was made as it would be now; without pictures, any is good enough."""
    if conversion is None or not asked.images:
        return True
    same_method = conversion.method in (None, asked.method.value)
    return same_method and conversion.images_sha256 == _samples(asked, bundle).sha256()


def _samples(asked: BuildOptions, bundle: Bundle) -> Samples:
    """The pictures that were named, or the built-in ones."""
    paths = expand_sources(asked.images) if asked.images else built_in_photos()
    return load_samples(paths, asked.annotations, bundle.manifest.class_names)


def _split(samples: Samples) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Pictures that ranges are taken from, and every fifth to compare on, if there are enough."""
    for warning in samples.warnings:
        warn(warning)
    if len(samples.items) < _FEW_PICTURES:
        warn(
            f"{counted(len(samples.items), 'picture')}: too few for reliable ranges and "
            "comparisons; give some hundreds like those to be run later with --images"
        )
    if len(samples.items) < _ENOUGH_TO_HOLD_OUT:
        return samples.items, samples.items
    kept = [item for i, item in enumerate(samples.items) if i % _HELD_OUT_EVERY]
    return kept, samples.items[::_HELD_OUT_EVERY]


def _settings(asked: BuildOptions, progress: Progress) -> Int8Settings:
    """How stages are quantised, with a bar for each step."""
    on_cpu = asked.backend is BackendChoice.ONNXRUNTIME
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done, total=total)

    target = Int8Target.CPU if on_cpu else Int8Target.TENSORRT
    return Int8Settings(target=target, method=asked.method, progress=report)
