"""``dyninfer demo``: all of it on the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dyninfer.cli.common import progress_bar, stdout
from dyninfer.cli.export import export_with_progress
from dyninfer.cli.verify import (
    built_in_photos,
    print_summary,
    refuse_disparity,
    run_verification,
)
from dyninfer.errors import MissingExtra

if TYPE_CHECKING:
    from dyninfer.benchmarks.demo import DemoPaths
    from dyninfer.benchmarks.speed_curve import CurvePoint

_MODULES = ("onnxruntime", "torch", "onnx", "onnxscript", "faster_coco_eval", "skimage", "mlxtend")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the bundle and the pictures.")
    ] = Path("demo-output"),
    scenes: Annotated[
        int, typer.Option("--scenes", min=20, help="Held-out scenes to measure on.")
    ] = 300,
) -> None:
    """Export, verify and run the embedded model on scenes it has never seen.

    The model finds handwritten digits on photographs; it is small and trained by this project.
    Takes one to three minutes on two cores.

    Example: **dyninfer demo --output demo-output**
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"the demo needs {', '.join(missing)}; "
            'install with pip install "dyninfer[cpu,export,eval,demo]"'
        )
    from dyninfer.benchmarks.demo import DemoPaths

    paths = DemoPaths(output)
    output.mkdir(parents=True, exist_ok=True)
    _export(paths)
    points = _measure(paths, scenes)
    stdout.print(_table(points, scenes))
    stdout.print(
        f"pictures: [bold]{paths.sheet}[/bold] (easy and hard side by side), "
        f"[bold]{paths.photos}[/bold], {paths.scenes}/\n"
        f"the exported bundle: [bold]{paths.bundle}[/bold]; "
        f"try dyninfer predict {paths.bundle} {paths.scenes}/0000.jpg",
        soft_wrap=True,
    )


def _export(paths: DemoPaths) -> None:
    from dyninfer.benchmarks.demo import embedded_checkpoint, write_class_names
    from dyninfer.exporters.dynamicdet.export import DynamicDetOptions

    checkpoint = embedded_checkpoint()
    stdout.print(f"1. exporting {checkpoint.name}: first, router, head and second as ONNX files")
    options = DynamicDetOptions(
        image_size=(192, 192),
        class_names=write_class_names(paths.folder),
        licence="Apache-2.0",
        overwrite=True,
    )
    export_with_progress(checkpoint, paths.bundle, options)
    stdout.print("2. verifying every stage and route against PyTorch")
    parity = run_verification(paths.bundle, checkpoint, None, built_in_photos(), 4)
    print_summary(parity)
    refuse_disparity(paths.bundle, parity)


def _measure(paths: DemoPaths, count: int) -> Sequence[CurvePoint]:
    from dyninfer.benchmarks import demo as pages
    from dyninfer.benchmarks.scenes import SceneSource
    from dyninfer.benchmarks.speed_curve import measure_curve, measure_easiness, spread_policies
    from dyninfer.detector import load

    stdout.print(f"3. running {count} held-out scenes, one at a time, at five settings")
    with progress_bar() as progress, load(paths.bundle) as detector:
        task = progress.add_task("making scenes", total=count)
        spec = detector.manifest.image_inputs["images"]
        source = SceneSource("held_out", size=spec.width)
        scenes = []
        for index in range(count):
            scenes.append(source.scene(index))
            progress.advance(task)
        easiness = measure_easiness(detector, scenes)
        policies = spread_policies(easiness)
        progress.reset(task, description="running")
        points = measure_curve(detector, scenes, policies, lambda: progress.advance(task))
        progress.reset(task, description="drawing")
        sheet = pages.draw_easy_and_hard(detector, scenes, easiness)
        pages.write_picture(paths.sheet, sheet)
        pages.write_picture(paths.photos, pages.draw_photographs(detector, policies))
        half = points[len(points) // 2]
        pages.write_scenes(paths.scenes, scenes, half, progress=lambda: progress.advance(task))
    pages.write_summary(paths.summary, points, count)
    return points


def _table(points: Sequence[CurvePoint], scenes: int) -> Table:
    table = Table(title=f"{scenes} held-out scenes, one set of engines", title_justify="left")
    table.add_column("setting")
    for column in ("hard images", "AP", "AP50", "ms per image"):
        table.add_column(column, justify="right")
    for point in points:
        table.add_row(
            str(point.policy),
            f"{point.hard_share:.0%}",
            f"{100 * point.ap:.1f}",
            f"{100 * point.ap50:.1f}",
            f"{point.mean_ms:.2f}",
        )
    return table
