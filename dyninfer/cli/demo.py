"""``dyninfer demo``: all of it on the embedded model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.benchmarks.report.figures import points
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.cli.calibrate import run_calibration
from dyninfer.cli.common import built_in_photos, expand_sources, progress_bar, stdout
from dyninfer.cli.evaluate import quality_lines
from dyninfer.cli.exporting import DYNAMICDET_STAGES, export_with_progress
from dyninfer.cli.verify import conclude, run_verification
from dyninfer.demo import EMBEDDED_CHECKPOINT, pages
from dyninfer.demo.photographs import package_photographs
from dyninfer.demo.scenes import ANNOTATIONS_FILE, CLASS_NAMES, SceneSource, write_scene_files
from dyninfer.errors import InputError, MissingExtra
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.outcomes import read_pictures, run_samples
from dyninfer.evaluation.routed_curve import CurveResult, evaluate_curve
from dyninfer.evaluation.runs import CurvePoint, WayTimes, measure_points, spread_policies
from dyninfer.images.pictures import read_image
from dyninfer.installing import command_words, pip_install
from dyninfer.plain_text import counted
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.types import ImageArray

_MODULES = (
    "onnxruntime",
    "torch",
    "onnx",
    "onnxscript",
    "faster_coco_eval",
    "skimage",
    "mlxtend",
    "matplotlib",
)
CURVE, SHEET, PHOTOS = "curve.png", "easy-and-hard.jpg", "photographs.jpg"
EVERYDAY = "everyday.jpg"
MOST_PHOTOS = 12
SCENES, HELD_OUT = "scenes", "held-out"
CALIBRATION_SCENES = 200
_FIRST_CALIBRATION_SCENE = 50_000  # no scene is in both sets


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the bundle and the pictures.")
    ] = Path("demo-output"),
    scenes: Annotated[
        int, typer.Option(min=20, help="Number of held-out scenes to measure on.")
    ] = 300,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            "--photos",
            help=f"Photos of yours, or folders, for the model everyday; {MOST_PHOTOS} are drawn at "
            "most. Default: photographs that Python packages ship.",
        ),
    ] = None,
) -> None:
    """Export, verify, calibrate and run the embedded model on scenes it has never seen.

    The model is small and finds handwritten digits on photographs; this project has trained it. The
    model **everyday** is shown beside it, on real photographs. The demo takes about two minutes on
    two cores.

    Example: **dyninfer demo --output demo-output --photos my-photos/**
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"the demo needs {', '.join(missing)}; "
            f"install with {pip_install('cpu', 'export', 'eval', 'demo')}"
        )
    pictures = _photographs(photos)
    _make_folder(output)
    bundle = output / "dy-digits.dyn"
    _export(bundle)
    with load(bundle) as detector:
        _calibrate(detector, output / "calibration")
        points, curve = _measure(detector, output, scenes)
    _show_everyday(output / EVERYDAY, pictures)
    print_table(_table(points, scenes), stdout)
    for line in quality_lines(curve):
        stdout.print(line)
    example = shlex.join(
        [*command_words(), "predict", str(bundle), str(output / HELD_OUT), "--speed", "25%"]
    )
    stdout.print(
        styled(
            "pictures: ",
            (str(output / CURVE), "bold"),
            " (accuracy against time), ",
            (str(output / SHEET), "bold"),
            " (easy and hard side by side), ",
            (str(output / PHOTOS), "bold"),
            f", {output / SCENES}/, ",
            (str(output / EVERYDAY), "bold"),
            " (what the model everyday finds)",
        )
    )
    stdout.print(styled("the calibrated bundle: ", (str(bundle), "bold"), f"; try {example}"))


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{output} cannot be made: {error.strerror}; choose another place with --output"
        ) from None


def _photographs(given: Sequence[Path] | None) -> list[ImageArray]:
    """The first of those that were given, or those of packages.

    Raises:
        InputError: a path is not there, or one of the first is no picture.
    """
    if not given:
        return package_photographs()
    return [read_image(path) for path in expand_sources(given)[:MOST_PHOTOS]]


def _show_everyday(page: Path, pictures: Sequence[ImageArray]) -> None:
    stdout.print(f"5. running the model everyday on {counted(len(pictures), 'photograph')}")
    with load("everyday") as detector:
        pages.write_picture(page, pages.draw_everyday(detector, pictures))


def _export(bundle: Path) -> None:
    from dyninfer.exporters.dynamicdet.export import DYNAMICDET, DynamicDetOptions

    checkpoint, names = EMBEDDED_CHECKPOINT, bundle.with_name("class-names.txt")
    write_atomically(names, "\n".join(CLASS_NAMES) + "\n")
    stdout.print(f"1. exporting {checkpoint.name}: first, router, head and second as ONNX files")
    options = DynamicDetOptions((192, 192), names, licence="Apache-2.0", overwrite=True)
    export_with_progress(DYNAMICDET, checkpoint, bundle, options, DYNAMICDET_STAGES)
    stdout.print("2. verifying every stage and way against PyTorch")
    parity, _ = run_verification(bundle, [checkpoint], None, built_in_photos(), random_tensors=4)
    conclude(bundle, parity)


def _calibrate(detector: Detector, folder: Path) -> None:
    """Take thresholds from scenes of their own, as ``dyninfer calibrate`` does."""
    stdout.print(f"3. calibrating thresholds on {CALIBRATION_SCENES} scenes the model has not seen")
    first = _FIRST_CALIBRATION_SCENE
    samples = _write_scenes(detector, folder, range(first, first + CALIBRATION_SCENES))
    calibration, _ = run_calibration(detector, samples)
    detector.bundle.write_calibration(calibration)


def _write_scenes(detector: Detector, folder: Path, indices: range) -> Samples:
    """Scenes as files, with what is in them."""
    source = SceneSource("held_out", size=detector.manifest.image_inputs["images"].width)
    with progress_bar() as progress:
        task = progress.add_task("making scenes", total=len(indices))
        files = write_scene_files(folder, source, indices, lambda: progress.advance(task))
    return load_samples(files, folder / ANNOTATIONS_FILE, detector.class_names)


def _measure(
    detector: Detector, folder: Path, count: int
) -> tuple[Sequence[CurvePoint], CurveResult]:
    """Run the held-out scenes, draw them and the curve."""
    stdout.print(f"4. running {count} other held-out scenes, one at a time, at five settings")
    samples = _write_scenes(detector, folder / HELD_OUT, range(count))
    pictures = list(read_pictures(samples.items))
    policies = spread_policies()
    with progress_bar() as progress:
        task = progress.add_task("running every exit", total=count)
        outcomes = run_samples(detector, samples, lambda: progress.advance(task))
        assert outcomes.scores is not None  # the scenes come with their truth
        progress.reset(task, description="running")
        points = measure_points(
            detector, pictures, policies, outcomes.scores, lambda: progress.advance(task)
        )
        progress.reset(task, description="drawing")
        times = WayTimes.of([points[0].timed, points[-1].timed])  # all easy, all hard
        curve = evaluate_curve(detector.manifest, outcomes, times)
        sheet = pages.draw_easy_and_hard(detector, pictures, outcomes.easiness[0])
        pages.write_picture(folder / SHEET, sheet)
        pages.write_picture(folder / PHOTOS, pages.draw_photographs(detector, policies))
        for number, answer in enumerate(points[len(points) // 2].timed.answers):
            path = folder / SCENES / f"{number:04d}.jpg"
            pages.write_picture(path, pages.draw(pictures[number], answer))
            progress.advance(task)
    title = f"{count} held-out scenes, one set of engines"
    machine = detector.engine_record().device_name
    pages.draw_curve(folder / CURVE, curve.rows, points, title, machine)
    pages.write_summary(folder / "summary.json", points, curve)
    return points, curve


def _table(settings: Sequence[CurvePoint], scenes: int) -> Table:
    return make_table(
        f"{scenes} held-out scenes, one set of engines",
        column("setting", (str(point.policy) for point in settings), words=True),
        column("hard images", (f"{point.hard_share:.0%}" for point in settings)),
        column("AP", (points(point.scores.primary) for point in settings)),
        column("AP50", (points(point.scores.secondary) for point in settings)),
        column("ms per image", (f"{point.mean_ms:.2f}" for point in settings)),
    )
