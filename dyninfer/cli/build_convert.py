"""Converting the stages whose precision differs from the bundle's own, and measuring the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import Progress, TaskID

from dyninfer.builds.files import NOTHING_CONVERTED, Converted
from dyninfer.builds.spec import Conversion, own_precision, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.cli.build_request import BackendChoice, PictureChoices, Request
from dyninfer.cli.common import warn

if TYPE_CHECKING:
    from dyninfer.evaluation.dataset import Sample, Samples
    from dyninfer.exporters.precision.convert import ConvertedStage
    from dyninfer.exporters.precision.settings import Int8Settings

_FEW_PICTURES = 50
_HELD_OUT_EVERY = 5
_ENOUGH_TO_HOLD_OUT = 10


def convert_stages(
    request: Request,
    bundle: Bundle,
    plan: Mapping[str, Precision],
    folder: Path,
    progress: Progress,
) -> Converted:
    """The stages in the precision that is wanted, as files in ``folder``.

    Raises:
        MissingExtra: what converts is not installed.
        InputError: a picture or label cannot be used.
        ExportError: a stage cannot be converted.
    """
    if dict(plan) == own_precision(bundle.manifest):
        return NOTHING_CONVERTED
    from dyninfer.exporters.extras import require_export_extra

    require_export_extra()
    from dyninfer.exporters.precision.convert import convert_bundle_stages

    pictures = _samples(request.pictures, bundle)
    calibration, measured = _split(pictures)
    settings = _settings(request, progress)
    made = convert_bundle_stages(
        bundle, plan, [sample.path for sample in calibration], folder, settings
    )
    conversion = Conversion(
        method=request.pictures.method if Precision.INT8 in plan.values() else None,
        images_sha256=pictures.sha256(),
        image_count=len(calibration),
        kept_high={name: stage.kept_float for name, stage in made.items() if stage.kept_float},
    )
    own = source_hashes(bundle.manifest)
    files = {name: stage.path for name, stage in made.items() if stage.sha256 != own[name]}
    return Converted(files, conversion, _compare(bundle, made, measured, progress))


def _compare(
    bundle: Bundle,
    made: Mapping[str, ConvertedStage],
    measured: Sequence[Sample],
    progress: Progress,
) -> dict[str, Any]:
    """How far converted stages are from the bundle's own."""
    from dyninfer.exporters.precision.measure import measure_precision

    task = progress.add_task("comparing with fp32", total=len(measured))
    truths = [sample.truth for sample in measured if sample.truth is not None]
    paths = [sample.path for sample in measured]
    advance = partial(progress.advance, task)
    return measure_precision(bundle, made, paths, truths or None, advance).to_dict()


def same_conversion(asked: PictureChoices, bundle: Bundle, conversion: Conversion | None) -> bool:
    """Whether a conversion was made as it would be now; without pictures, any is good enough."""
    if conversion is None or not asked.images:
        return True
    same_method = conversion.method in (None, asked.method)
    return same_method and conversion.images_sha256 == _samples(asked, bundle).sha256()


def _samples(asked: PictureChoices, bundle: Bundle) -> Samples:
    """The pictures that were named, or the built-in ones."""
    from dyninfer.cli.sources import expand_sources
    from dyninfer.cli.verify import built_in_photos
    from dyninfer.evaluation.dataset import load_samples

    given = [str(path) for path in asked.images or ()]
    paths = expand_sources(given) if given else built_in_photos()
    return load_samples(paths, asked.annotations, bundle.manifest.class_names)


def _split(samples: Samples) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Pictures that ranges are taken from, and every fifth to compare on, if there are enough."""
    for warning in samples.warnings:
        warn(warning)
    if len(samples.items) < _FEW_PICTURES:
        warn(
            f"{len(samples.items)} pictures are few to take ranges from and to compare on; give "
            "some hundred like those that will be seen with --images"
        )
    if len(samples.items) < _ENOUGH_TO_HOLD_OUT:
        return samples.items, samples.items
    kept = [item for i, item in enumerate(samples.items) if i % _HELD_OUT_EVERY]
    return kept, samples.items[::_HELD_OUT_EVERY]


def _settings(request: Request, progress: Progress) -> Int8Settings:
    from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings, Int8Target

    asked = request.pictures.method
    methods = [method.value for method in CalibrationMethod]
    if asked not in methods:
        raise typer.BadParameter(f"--method is {asked!r}, expected one of {', '.join(methods)}")
    on_cpu = request.build.backend is BackendChoice.ONNXRUNTIME
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done, total=total)

    return Int8Settings(
        target=Int8Target.CPU if on_cpu else Int8Target.TENSORRT,
        method=CalibrationMethod(asked),
        progress=report,
    )
