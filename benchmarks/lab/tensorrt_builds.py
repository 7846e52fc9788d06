"""Every stage of full-size models, compiled by TensorRT-RTX: does it build, how long, how large.

No GPU takes part. ``python -m dyninfer.benchmarks.lab.tensorrt_builds --help`` tells how to run it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dyninfer.benchmarks.lab.run_record import RunRecord, ended_run, write_run
from dyninfer.benchmarks.machine import describe_machine
from dyninfer.benchmarks.report.table import column, make_table
from dyninfer.benchmarks.report.terminal import print_table
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.engines.trt.batch import BatchProfile
from dyninfer.engines.trt.builder import EngineOptions, StageFile, build_engine
from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.engines.trt.targets import check_for, find_presets
from dyninfer.errors import DyninferError

MODULE = "dyninfer.benchmarks.lab.tensorrt_builds"
DEVICES = "t4,a100,rtx30,rtx40,rtx50"
BATCH = "1:4:16"


@dataclass(frozen=True)
class StageBuild:
    """One stage in one precision, as one engine for all targets.

    ``error`` is why it did not build; the other figures are 0 then.
    """

    variant: str
    stage: str
    precision: str
    parameters: int
    onnx_bytes: int
    engine_bytes: int
    build_s: float
    error: str | None = None


@dataclass(frozen=True)
class BuildRecord(RunRecord):
    """What was built, with what, on what."""

    library: str
    compute_capabilities: tuple[str, ...]
    batch: str
    weights: str
    image_sizes: dict[str, int]
    int8_method: str
    builds: tuple[StageBuild, ...]


def main(
    variants: Annotated[
        list[str], typer.Option("--variant", help="dy-yolov7, dy-yolov7x or dy-yolov7-w6.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the record goes.")],
    precisions: Annotated[
        list[Precision] | None, typer.Option("--precision", help="All three if absent.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="The variant's own if absent.")
    ] = None,
    width_divisor: Annotated[
        int, typer.Option("--width-divisor", help="Narrower models, to try it out.")
    ] = 1,
    devices: Annotated[str, typer.Option("--for", help="As in dyninfer build.")] = DEVICES,
) -> None:
    """Build every stage of full-size models with random weights for several GPUs at once.

    Example: python -m dyninfer.benchmarks.lab.tensorrt_builds --variant dy-yolov7 -o record.json
    """
    console = Console(stderr=True)
    try:
        library = load_library(Flavour.RTX)
        presets = find_presets(devices)
        check_for(presets, library)
        capabilities = tuple(dict.fromkeys(preset.compute_capability for preset in presets))
        options = EngineOptions(BatchProfile.parse(BATCH), capabilities)
        sizes = {name: image_size or default_size(name) for name in variants}
        builds: list[StageBuild] = []
        for name in variants:
            wanted = precisions or list(Precision)
            for build in build_variant(name, sizes[name], width_divisor, wanted, library, options):
                console.print(_line(build))
                builds.append(build)
    except DyninferError as error:
        console.print(f"error: {error}", soft_wrap=True)
        raise SystemExit(1) from None
    write_run(make_record(library, options, sizes, builds), output)
    print_builds(builds)
    if any(build.error for build in builds):
        raise SystemExit(1)


def default_size(variant: str) -> int:
    """The side that a variant was published with."""
    return 1280 if variant.endswith("w6") else 640


def build_variant(
    variant: str,
    image_size: int,
    width_divisor: int,
    precisions: Sequence[Precision],
    library: Library,
    options: EngineOptions,
) -> Iterator[StageBuild]:
    """Export a variant with random weights and build its stages in every precision."""
    from dyninfer.benchmarks.lab.random_models import export_random

    with tempfile.TemporaryDirectory(prefix="dyninfer-") as folder:
        bundle = Bundle.open(export_random(variant, image_size, width_divisor, Path(folder)))
        for precision in precisions:
            files = converted_files(bundle, precision, Path(folder))
            for name, stage in bundle.manifest.stages.items():
                source = StageFile(name, stage, precision, files[name])
                yield build_stage(variant, source, library, options)


def converted_files(bundle: Bundle, precision: Precision, folder: Path) -> dict[str, Path]:
    """Stage -> its file in a precision, the router included.

    The ranges of int8 come from the built-in photographs by the cheapest method and no layer is
    kept in float32: with random weights there is no accuracy to keep.
    """
    stages = bundle.manifest.stages
    if precision is Precision.FP32:
        return {name: bundle.stage_path(name) for name in stages}
    from dyninfer.demo.run import ASSETS
    from dyninfer.exporters.precision.convert import convert_bundle_stages
    from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings, Int8Target
    from dyninfer.images.reading import find_images

    settings = Int8Settings(
        target=Int8Target.TENSORRT,
        method=CalibrationMethod.MINMAX,
        max_deviation=float("inf"),
        search_samples=1,
    )
    target = folder / precision.value
    target.mkdir()
    made = convert_bundle_stages(
        bundle,
        dict.fromkeys(stages, precision),
        find_images(ASSETS / "photos")[:2],
        target,
        settings,
    )
    return {name: stage.path for name, stage in made.items()}


def build_stage(
    variant: str, source: StageFile, library: Library, options: EngineOptions
) -> StageBuild:
    """Build one stage; what fails is noted, so that all others are tried as well."""
    start = time.perf_counter()
    error, engine = None, b""
    try:
        engine = build_engine(library, source, options)
    except DyninferError as failure:
        error = str(failure)
    return StageBuild(
        variant=variant,
        stage=source.name,
        precision=source.precision.value,
        parameters=source.stage.parameters,
        onnx_bytes=source.onnx.stat().st_size,
        engine_bytes=len(engine),
        build_s=0.0 if error else round(time.perf_counter() - start, 2),
        error=error,
    )


def make_record(
    library: Library, options: EngineOptions, sizes: dict[str, int], builds: Sequence[StageBuild]
) -> BuildRecord:
    """The record of a run that has just ended."""
    return BuildRecord(
        **ended_run(MODULE, describe_machine()),
        library=library.title,
        compute_capabilities=options.compute_capabilities,
        batch=str(options.batch),
        weights="random",
        image_sizes=sizes,
        int8_method="minmax on two photographs, no layer kept in float32",
        builds=tuple(builds),
    )


def _line(build: StageBuild) -> str:
    name = f"{build.variant} {build.stage} {build.precision}"
    if build.error:
        return f"{name}: {build.error}"
    return f"{name}: {build.build_s:.1f} s, {build.engine_bytes / 1e6:.1f} MB"


def print_builds(builds: Sequence[StageBuild]) -> None:
    """All builds as a table."""
    seconds = ("failed" if build.error else f"{build.build_s:.1f}" for build in builds)
    table = make_table(
        "",
        column("variant", (build.variant for build in builds), words=True),
        column("stage", (build.stage for build in builds), words=True),
        column("precision", (build.precision for build in builds), words=True),
        column("seconds", seconds),
        column("ONNX MB", (f"{build.onnx_bytes / 1e6:.1f}" for build in builds)),
        column("engine MB", (f"{build.engine_bytes / 1e6:.1f}" for build in builds)),
    )
    print_table(table, Console())


if __name__ == "__main__":
    typer.run(main)
