"""``dyninfer calibrate``: ways and thresholds against milliseconds and accuracy."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dyninfer.benchmarks.machine import MachineRecorder, disturbances_of
from dyninfer.benchmarks.report.figures import readable
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.calibration import CALIBRATION_FILE, Calibration, CalibrationRow, Figures
from dyninfer.bundle.folder import COPY_BUNDLE, Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.cli.biases import bias_table, expected_line, figure_columns
from dyninfer.cli.common import (
    check_output_file,
    expand_sources,
    print_json,
    progress_bar,
    stdout,
    warn,
    warn_if_untrained,
)
from dyninfer.cli.options import (
    BundleArgument,
    EngineOptions,
    JsonOption,
    PixelsOption,
    with_option_groups,
)
from dyninfer.errors import BundleError, InputError
from dyninfer.evaluation.calibrate import (
    PERCENTILES,
    check_calibratable,
    check_threshold,
    make_calibration,
    remarks,
)
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.interleaved import mean_interval
from dyninfer.evaluation.outcomes import (
    Outcomes,
    TracePicture,
    pictures_to_time,
    read_pictures,
    run_samples,
)
from dyninfer.evaluation.runs import WayTimes, settled_way_times
from dyninfer.evaluation.worth import not_faster
from dyninfer.images.pictures import MAX_PIXELS
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.certify import certify, describe_certificate, images_needed
from dyninfer.routing.thresholds import SEND_ALL
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

SHOWN_EVERY = 10  # percentiles
DEFAULT_TIME_IMAGES = 100
TimeImagesOption = Annotated[
    int, typer.Option("--time-images", min=1, help="Maximum number of pictures to time.")
]


@dataclass(frozen=True)
class CertificateOptions:
    """What is to be certified."""

    risk: Annotated[
        float | None, typer.Option(help="Certify a threshold whose expected loss is at most this.")
    ] = None
    confidence: Annotated[float, typer.Option(help="Probability that the certificate holds.")] = (
        0.95
    )

    def check(self) -> None:
        """Refuse at once what could certify nothing, as wrong usage."""
        if self.risk is None:
            return
        try:
            images_needed(self.risk, self.confidence)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None


@with_option_groups
def calibrate(
    bundle: BundleArgument,
    images: Annotated[
        list[Path],
        typer.Option("--images", "-i", help="Pictures or folders like those to be run later."),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="What is in the pictures, as for **dyninfer eval**; adds scores to the table.",
        ),
    ] = None,
    *,
    certificate: CertificateOptions,
    time_images: TimeImagesOption = DEFAULT_TIME_IMAGES,
    max_pixels: PixelsOption = MAX_PIXELS,
    engine: EngineOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure every exit and threshold on your own pictures, and write calibration.json.

    Afterwards a cascade can be asked for a share of hard images, milliseconds,
    multiply-accumulates or accuracy, and a chooser for all of these but the first. The pictures
    need no labels; some hundreds, of the kind to be run later, make a good calibration.
    Agreement is 1 - loss; the loss is 1 - F1 of what an exit finds against what the last finds, or
    of a classifier the share of pictures of which the two say another class.

    Example: **dyninfer calibrate dy-yolov7.dyn --images photos/ --annotations labels.json**
    """
    certificate.check()
    samples = _samples_for(bundle, images, annotations, certified=certificate.risk is not None)
    with load(bundle, **asdict(engine), max_pixels=max_pixels) as detector:
        calibration, told = run_calibration(detector, samples, time_images, **asdict(certificate))
        detector.bundle.write_calibration(calibration)
        options, written = detector.opening_options(), detector.bundle.path / CALIBRATION_FILE
    for line in told:
        warn(line)
    if json_output:
        print_json(json.loads(calibration.model_dump_json()))
    else:
        print_calibration(calibration, detector.manifest.way_names)
        stdout.print(styled("written to ", (str(written), "bold")))
        for line in _next_steps(bundle, calibration, options):
            stdout.print(line)


def _samples_for(
    path: Path, images: list[Path], annotations: Path | None, *, certified: bool
) -> Samples:
    """The pictures, once it is known that the bundle can be calibrated on them."""
    bundle = Bundle.open(path, check_calibration=False)
    manifest = bundle.manifest
    warn_if_untrained(manifest)
    if certified:
        check_threshold(manifest, "no threshold to certify; leave --risk out")
    paths = expand_sources(images)
    samples = load_samples(paths, annotations, manifest.class_names, manifest.task)
    check_calibratable(manifest, len(samples.items))
    check_output_file(bundle.path / CALIBRATION_FILE, COPY_BUNDLE)
    _drop_unusable(bundle)
    return samples


def _drop_unusable(bundle: Bundle) -> None:
    """Remove a calibration that was changed, so that the bundle can be opened to measure anew."""
    try:
        bundle.calibration()
    except BundleError:
        warn(f"{bundle.path / CALIBRATION_FILE} cannot be used any more; it is replaced")
        (bundle.path / CALIBRATION_FILE).unlink()


def run_calibration(
    detector: Detector,
    samples: Samples,
    time_images: int = DEFAULT_TIME_IMAGES,
    risk: float | None = None,
    confidence: float = 0.95,
) -> tuple[Calibration, list[str]]:
    """Measure under a progress bar; the calibration, and what a user should know, a line each."""
    outcomes, times, doubts = run_every_way(detector, samples, time_images)
    certificate = None
    if risk is not None:
        certificate = certify(outcomes.easiness, outcomes.losses, risk, confidence)
    with progress_bar() as progress:
        task = progress.add_task("making the table", total=len(PERCENTILES))
        calibration = make_calibration(
            detector, outcomes, times, certificate, lambda: progress.advance(task)
        )
    told = [*outcomes.samples.warnings, *remarks(detector.bundle, calibration), *doubts]
    if not outcomes.hardest_found:
        told.append(_nothing_found(detector.manifest, calibration.images.count))
    if slow := not_faster(times, detector.manifest):
        told.append(slow)
    return calibration, told


def _nothing_found(manifest: Manifest, count: int) -> str:
    own = manifest.use_options
    above = f" above its confidence of {own.confidence:g}" if isinstance(own, Postprocess) else ""
    nothing = f"{manifest.hardest_name} finds nothing{above} in any picture ({count})"
    return (
        f"{nothing}, so agreement and certificates say nothing; give pictures that show what it "
        "knows"
    )


def run_every_way(
    detector: Detector, samples: Samples, time_images: int, trace_of: TracePicture | None = None
) -> tuple[Outcomes, WayTimes, list[str]]:
    """Run all pictures along every way and time some of them, under a progress bar.

    ``trace_of`` runs them instead of the detector's engines, which are what is timed. Times are
    taken until they are known; why they are not, or of what load they are, comes last.
    """
    with progress_bar() as progress:
        task = progress.add_task("running every way", total=len(samples.items))
        outcomes = run_samples(detector, samples, lambda: progress.advance(task), trace_of)
        timed = pictures_to_time(outcomes.samples, time_images)
        progress.reset(task, description="timing every way", total=len(timed))
        with MachineRecorder(device=detector.device) as recorder:
            times = settled_way_times(
                detector,
                lambda: read_pictures(timed, detector.max_pixels),
                lambda: progress.advance(task),
            )
    doubts = disturbances_of(recorder.log())
    if not times.known:
        spans = zip(detector.manifest.way_names, times.intervals_ms, strict=True)
        unknown = "; ".join(f"{name} {low:.2f} to {high:.2f} ms" for name, (low, high) in spans)
        doubts.insert(0, f"times did not settle: {unknown} (95 % intervals of the means)")
    return outcomes, times, doubts


def print_calibration(calibration: Calibration, way_names: Sequence[str]) -> None:
    """The thresholds, some percentiles of them, or the ways, and what they cost."""
    print_table(_table(calibration, way_names), stdout)
    if calibration.biases:
        print_table(bias_table(calibration), stdout)
    if line := expected_line(calibration, way_names):
        stdout.print(line)
    times = "; ".join(
        f"{name} {np.mean(spent):.2f} ms ({_interval(spent)}p95 {np.percentile(spent, 95):.2f})"
        for name, spent in zip(way_names, calibration.exit_ms, strict=True)
    )
    stdout.print(
        f"{times}: means of {len(calibration.exit_ms[0])} calls with one picture, "
        f"{calibration.engine.device_name}"
    )
    for line in _certificate_lines(calibration):
        stdout.print(line)


def _interval(spent: Sequence[float]) -> str:
    """That of a mean; nothing where a single time tells of none."""
    low, high = mean_interval(spent)
    return f"{low:.2f} to {high:.2f}, " if math.isfinite(low) else ""


def _table(calibration: Calibration, way_names: Sequence[str]) -> Table:
    title = counted(calibration.images.count, "picture")
    if calibration.rows:
        rows = _shown_rows(calibration)
        return make_table(
            title,
            column("hard", (f"{row.hard_fraction:.1%}" for row in rows)),
            column("threshold", (f"{row.threshold:.4g}" for row in rows)),
            *figure_columns(rows, calibration.metrics),
        )
    names, ways = [*way_names], [*calibration.ways]
    shares = ["" if way.share is None else f"{way.share:.1%}" for way in ways]
    figures: list[Figures] = [*ways]
    if len(ways) > 1 and calibration.routed is not None:
        names, shares = [*names, calibration.policy], [*shares, ""]
        figures.append(calibration.routed)
    macs = ("" if way.mean_macs is None else readable(way.mean_macs) for way in figures)
    named = column("way", names, words=True), column("share", shares), column("MACs", macs)
    return make_table(title, *named, *figure_columns(figures, calibration.metrics))


def _shown_rows(calibration: Calibration) -> list[CalibrationRow]:
    """Every tenth percentile, shares that repeat once only, and all pictures hard."""
    figures = calibration.ways[-1].model_dump(exclude={"share"})
    last = CalibrationRow(percentile=100, threshold=SEND_ALL, hard_fraction=1, **figures)
    rows = {row.hard_fraction: row for row in (last, *calibration.rows[::-SHOWN_EVERY])}
    rows[1.0] = last
    return sorted(rows.values(), key=lambda row: row.hard_fraction)


def _certificate_lines(calibration: Calibration) -> list[str]:
    """What was certified and what is assumed; what it would take, where nothing was."""
    certificate = calibration.certificate
    if certificate is None:
        return []
    lines = describe_certificate(certificate).splitlines()
    if certificate.hard_fraction < 1:
        return lines
    needed = images_needed(certificate.risk, certificate.confidence)
    count = calibration.images.count
    if count < needed:
        given = counted(count, "picture")
        why = f"{given} will not do: {needed} would be needed even if all exits agreed"
    else:
        why = (
            f"only all pictures hard can be certified: the exits disagree too much for {count} "
            "pictures; give more, or a larger --risk"
        )
    return [*lines, why]


def _next_steps(path: Path, calibration: Calibration, options: str) -> list[str]:
    """What to do with it; ``options`` open the engines that it is of."""
    predict = f"next: dyninfer predict {shlex.quote(str(path))} PICTURES{options}"
    easiness = calibration.easiness_array
    if calibration.biases:
        spent = [row.mean_macs or 0.0 for row in calibration.biases]
        goal = f"{(spent[0] + spent[-1]) / 2e9:.3g}"
        return [
            f"{predict} --speed {goal}GMACs",
            f"   or: detector.policy = dyninfer.MacsBudget(gmacs={goal})",
        ]
    if not len(easiness):
        return [predict]
    if easiness.shape[0] == 1 and len(np.unique(easiness)) == 1:
        return ["next: dyninfer.AlwaysEasy() or dyninfer.AlwaysHard(); train the router again"]
    first, last = (calibration.ways[index].scores.primary for index in (0, -1))
    if first is not None and last is not None and first >= last:
        return [f"{predict} --speed easy", "   or: detector.policy = dyninfer.AlwaysEasy()"]
    return [f"{predict} --speed 30%", "   or: detector.policy = dyninfer.HardFraction(0.3)"]
