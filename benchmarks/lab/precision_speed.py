"""8-bit integers against float32 on ONNX Runtime's CPU, stage by stage, on full-size models.

``python -m dyninfer.benchmarks.lab.precision_speed --help`` tells how to run it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dyninfer.benchmarks.lab.limits.repeated import repeated
from dyninfer.benchmarks.lab.run_record import RunRecord, ended_run, write_run
from dyninfer.benchmarks.machine import describe_machine
from dyninfer.benchmarks.report.table import column, make_table
from dyninfer.benchmarks.report.terminal import print_table
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.demo.run import ASSETS
from dyninfer.errors import DyninferError, InputError
from dyninfer.evaluation.interleaved import (
    Quantiles,
    RatioEstimate,
    compare,
    quantiles,
    run_rounds,
    warm_up,
)
from dyninfer.images.reading import find_images

if TYPE_CHECKING:
    from dyninfer.exporters.precision.convert import ConvertedStage

MODULE = "dyninfer.benchmarks.lab.precision_speed"
STAGES = ("first", "second")
SPEEDUP_AIM = 1.8


@dataclass(frozen=True)
class StageSpeed:
    """One stage in both precisions, run in turns.

    ``time_ratio`` is int8's time over float32's, round by round; ``kept_float`` are the layers
    that the conversion left in float32, ``deviation`` what it measured at the stage's outputs.
    """

    stage: str
    fp32: Quantiles
    int8: Quantiles
    time_ratio: RatioEstimate
    speedup_aim: float
    kept_float: tuple[str, ...]
    deviation: float | None
    fp32_bytes: int
    int8_bytes: int
    fp32_times_ms: tuple[float, ...]
    int8_times_ms: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """How many times as fast int8 is."""
        return 1 / self.time_ratio.median


@dataclass(frozen=True)
class PrecisionSpeedRecord(RunRecord):
    """One run of the benchmark."""

    variant: str
    weights: str
    height: int
    width: int
    batch: int
    rounds: int
    calibration_pictures: int
    conversion_s: float
    stages: tuple[StageSpeed, ...]


def main(
    variant: Annotated[
        str, typer.Option(help="dy-yolov7, dy-yolov7x or dy-yolov7-w6.")
    ] = "dy-yolov7",
    image_size: Annotated[int, typer.Option(help="Side of the square input in pixels.")] = 640,
    rounds: Annotated[int, typer.Option(min=2, help="Runs of each precision, per stage.")] = 30,
    width_divisor: Annotated[
        int, typer.Option(min=1, help="Divide all widths by this, to try the benchmark out.")
    ] = 1,
    stages: Annotated[str, typer.Option(help="Which stages, separated by commas.")] = ",".join(
        STAGES
    ),
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures; the built-in photos if absent.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the JSON record goes.")] = None,
) -> None:
    """Time stages with random weights in float32 and int8 in turns; batch 1.

    Example: python -m dyninfer.benchmarks.lab.precision_speed --rounds 30
    --output benchmarks/results/int8-dy-yolov7-640.json
    """
    console = Console()
    try:
        with tempfile.TemporaryDirectory() as folder:
            record = _measure(
                _Plan(variant, image_size, width_divisor, rounds, tuple(stages.split(","))),
                find_images(calibration or ASSETS / "photos"),
                Path(folder),
                console,
            )
    except DyninferError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if output is not None:
        write_run(record, output)
    print_speeds(record, console)


@dataclass(frozen=True)
class _Plan:
    variant: str
    image_size: int
    width_divisor: int
    rounds: int
    stages: tuple[str, ...]


def _measure(
    plan: _Plan, pictures: Sequence[Path], folder: Path, console: Console
) -> PrecisionSpeedRecord:
    from dyninfer.benchmarks.lab.random_models import export_random, name_of
    from dyninfer.exporters.precision.convert import convert_bundle_stages

    machine = describe_machine()
    side = plan.image_size
    console.print(f"exporting {plan.variant} with random weights ...")
    bundle = Bundle.open(export_random(plan.variant, side, plan.width_divisor, folder))
    console.print(f"quantising {', '.join(plan.stages)} on {len(pictures)} pictures ...")
    start = time.perf_counter()
    wanted = dict.fromkeys(plan.stages, Precision.INT8)
    converted = convert_bundle_stages(bundle, wanted, pictures, folder)
    conversion_s = time.perf_counter() - start
    console.print("timing in turns ...")
    speeds = tuple(
        time_stage(bundle, name, converted[name], pictures[0], plan.rounds) for name in plan.stages
    )
    return PrecisionSpeedRecord(
        **ended_run(MODULE, machine),
        variant=name_of(plan.variant, plan.width_divisor),
        weights="random",
        height=side,
        width=side,
        batch=1,
        rounds=plan.rounds,
        calibration_pictures=len(pictures),
        conversion_s=conversion_s,
        stages=speeds,
    )


def time_stage(
    bundle: Bundle, name: str, converted: ConvertedStage, picture: Path, rounds: int
) -> StageSpeed:
    """Run a stage in float32 and converted in turns, on what it reads of a picture.

    Both are sessions as the runtime opens them, whose threads stop when a run ends, so that neither
    slows the other down.

    Raises:
        InputError: the stage was not converted to int8.
    """
    from dyninfer.engines.ort.plain import PlainStages
    from dyninfer.exporters.precision.convert import stage_feed

    if converted.precision is not Precision.INT8:
        raise InputError(f"stage {name!r} is in {converted.precision.value}, expected int8")
    inputs = dict(next(iter(stage_feed(PlainStages(bundle), name, [picture])())))
    ours, theirs = PlainStages(bundle, {name: converted.path}), PlainStages(bundle)
    runs = {
        "fp32": repeated(lambda: theirs.run(name, inputs)),
        "int8": repeated(lambda: ours.run(name, inputs)),
    }
    for run in runs.values():
        warm_up(run)
    times = run_rounds(runs, rounds)
    return StageSpeed(
        stage=name,
        fp32=quantiles(times["fp32"]),
        int8=quantiles(times["int8"]),
        time_ratio=compare(times["int8"], times["fp32"]),
        speedup_aim=SPEEDUP_AIM,
        kept_float=converted.kept_float,
        deviation=converted.deviation,
        fp32_bytes=bundle.stage_path(name).stat().st_size,
        int8_bytes=converted.path.stat().st_size,
        fp32_times_ms=tuple(times["fp32"]),
        int8_times_ms=tuple(times["int8"]),
    )


def print_speeds(record: PrecisionSpeedRecord, console: Console) -> None:
    """The record as a table."""
    stages = record.stages
    ratios = [speed.time_ratio for speed in stages]
    met = ("met" if speed.speedup >= speed.speedup_aim else "missed" for speed in stages)
    aims = (f">= {s.speedup_aim}: {word}" for s, word in zip(stages, met, strict=True))
    table = make_table(
        f"{record.variant}, random weights, {record.height}x{record.width}, batch 1, "
        f"{record.rounds} rounds; {record.machine.cpu}, {record.machine.usable_cores} cores; "
        f"onnxruntime {record.machine.versions.get('onnxruntime', '?')}",
        column("stage", (speed.stage for speed in stages), words=True),
        column("fp32 ms", (f"{speed.fp32.median_ms:.1f}" for speed in stages)),
        column("int8 ms", (f"{speed.int8.median_ms:.1f}" for speed in stages)),
        column("speed-up", (f"{speed.speedup:.2f}" for speed in stages)),
        column("95 % interval", (f"{1 / r.high:.2f} to {1 / r.low:.2f}" for r in ratios)),
        column("aim", aims),
        column("kept fp32", (str(len(speed.kept_float)) for speed in stages)),
    )
    print_table(table, console)


if __name__ == "__main__":
    typer.run(main)
