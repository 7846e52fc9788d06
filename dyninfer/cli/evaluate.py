"""``dyninfer eval``: COCO average precision at one policy, or along the whole curve."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dyninfer.bundle.folder import write_atomically
from dyninfer.cli.calibrate import DEFAULT_TIME_IMAGES, TimeImagesOption
from dyninfer.cli.common import (
    BundleArgument,
    JsonOption,
    SpeedOption,
    check_output_file,
    progress_bar,
    read_speed,
    stdout,
    warn,
)
from dyninfer.cli.option_groups import EngineOptions, with_option_groups
from dyninfer.errors import InputError, PolicyError

if TYPE_CHECKING:
    from dyninfer.evaluation.dataset import Samples
    from dyninfer.evaluation.evaluate import PolicyResult
    from dyninfer.evaluation.routed_curve import CurveResult
    from dyninfer.runtime.detector import Detector

    Measured = tuple[dict[str, Any], Samples, Callable[[], None]]
    """What is written, the pictures that could be read, and what prints it."""

SHOWN_EVERY = 2  # rows of the curve


@with_option_groups
def evaluate(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Option("--images", "-i", help="Pictures or folders.")],
    annotations: Annotated[
        Path, typer.Option("--annotations", "-a", help="What is in them, as COCO JSON.")
    ],
    *,
    speed: SpeedOption = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="All hard fractions, and how good the routing is.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")
    ] = None,
    time_images: TimeImagesOption = DEFAULT_TIME_IMAGES,
    engine: EngineOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure COCO average precision at one setting, or along the curve from easy to hard.

    The curve sets the router beside chance, which sends the same numbers of pictures on, and an
    oracle, which knows what is in them: it sends on what gains most AP on its own.

    Example: **dyninfer eval dy-yolov7.dyn --images val/ --annotations val.json --curve**
    """
    from dyninfer.cli.sources import expand_sources
    from dyninfer.evaluation.dataset import load_samples
    from dyninfer.runtime.opening import load

    if curve and speed is not None:
        raise typer.BadParameter("give one of --speed and --curve")
    policy = None if speed is None else read_speed(speed)
    if output is not None:
        check_output_file(output)
    paths = expand_sources([str(path) for path in images])
    with load(bundle, **asdict(engine)) as detector:
        if policy is not None:
            detector.policy = policy
        samples = load_samples(paths, annotations, detector.class_names)
        _check(detector, samples, curve)
        measure = _measure_curve if curve else _measure_policy
        document, read, show = measure(detector, samples, time_images)
    for line in read.warnings:
        warn(line)
    if output is not None:
        write_atomically(output, json.dumps(document, indent=2) + "\n")
    if json_output:
        stdout.print_json(json.dumps(document))
    else:
        show()


def _measure_policy(detector: Detector, samples: Samples, time_images: int) -> Measured:
    found = run_policy(detector, samples, time_images)
    return policy_document(found), found.samples, lambda: print_policy(found)


def _measure_curve(detector: Detector, samples: Samples, time_images: int) -> Measured:
    found = run_curve(detector, samples, time_images)
    _tell_fitted_on(detector, found.samples)
    return curve_document(found), found.samples, lambda: print_curve(found)


def _check(detector: Detector, samples: Samples, curve: bool) -> None:
    """Refuse at once what could only fail at the end."""
    from dyninfer.bundle.manifest import Task
    from dyninfer.evaluation.coco import average_precision
    from dyninfer.evaluation.evaluate import objects_of

    manifest = detector.manifest
    if manifest.task is not Task.DETECT:
        raise InputError(f"{manifest.name} classifies; average precision needs a detector")
    if curve and (len(manifest.ways) < 2 or not manifest.routed):
        missing = "one exit" if len(manifest.ways) < 2 else "no router"
        raise PolicyError(f"{manifest.name} has {missing}, so there is no curve; leave --curve out")
    objects_of(samples)
    if not curve:
        average_precision([], [], 0)  # raises where its library is missing


def _tell_fitted_on(detector: Detector, samples: Samples) -> None:
    from dyninfer.evaluation.calibrate import FITTED_ON_THESE, was_fitted_on

    if was_fitted_on(detector.bundle, samples.sha256()):
        warn(FITTED_ON_THESE)


def run_policy(detector: Detector, samples: Samples, time_images: int) -> PolicyResult:
    """Measure at the detector's policy, under a progress bar."""
    from dyninfer.cli.calibrate import silence_decoder
    from dyninfer.evaluation.evaluate import evaluate_policy

    silence_decoder()
    with progress_bar() as progress:
        task = progress.add_task("detecting", total=len(samples.items))
        return evaluate_policy(detector, samples, time_images, lambda: progress.advance(task))


def run_curve(detector: Detector, samples: Samples, time_images: int) -> CurveResult:
    """Measure the curve, under a progress bar."""
    from dyninfer.cli.calibrate import run_every_exit
    from dyninfer.evaluation.routed_curve import ROWS, SEEDS, evaluate_curve

    outcomes, times = run_every_exit(detector, samples, time_images)
    with progress_bar() as progress:
        task = progress.add_task("comparing with chance", total=ROWS)
        return evaluate_curve(
            detector.manifest, outcomes, times, SEEDS, lambda: progress.advance(task)
        )


def policy_document(result: PolicyResult) -> dict[str, Any]:
    """Plain values, ready for JSON; precisions in [0, 1]."""
    return {
        "pictures": len(result.samples.items),
        "policy": result.policy,
        "precision": asdict(result.precision),
        "exit_shares": list(result.exit_shares),
        "hard_fraction": result.exit_shares[-1],
        "mean_ms": result.mean_ms,
    }


def curve_document(result: CurveResult) -> dict[str, Any]:
    """Plain values, ready for JSON; precisions in [0, 1]."""
    pairs = zip(result.exits, result.exit_ms, strict=True)
    return {
        "pictures": len(result.samples.items),
        "exits": [{**asdict(precision), "mean_ms": ms} for precision, ms in pairs],
        "last_exit_alone_ms": result.last_exit_alone_ms,
        "seeds": result.seeds,
        "rows": [
            {
                "threshold": row.threshold,
                "hard_fraction": row.hard_fraction,
                "mean_ms": row.mean_ms,
                "ap": row.ap,
                "ap50": row.ap50,
                "random_ap": asdict(row.random),
                "oracle_ap": row.oracle_ap,
            }
            for row in result.rows
        ],
        "routing": asdict(result.quality),
    }


def print_policy(result: PolicyResult) -> None:
    """COCO's six numbers, and who left where."""
    title = escape(f"{len(result.samples.items)} pictures, {result.policy}")
    table = Table(title=title, title_justify="left")
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
    precision = asdict(result.precision)
    for name in precision:
        table.add_column(names.get(name, name), justify="right")
    table.add_row(*(_percent(value) for value in precision.values()))
    stdout.print(table)
    shares = ", ".join(f"exit {n} {share:.1%}" for n, share in enumerate(result.exit_shares))
    stdout.print(f"left at {shares}; {result.mean_ms:.2f} ms per picture", soft_wrap=True)


def print_curve(result: CurveResult) -> None:
    """The curve beside chance and oracle, every second row of it, and the routing's quality."""
    title = f"{len(result.samples.items)} pictures"
    table = Table(title=title, title_justify="left")
    for column in ("hard", "threshold", "ms", "AP", "AP50", "random AP", "oracle AP"):
        table.add_column(column, justify="right", no_wrap=True)
    shown = {row.hard_fraction: row for row in result.rows[::-SHOWN_EVERY]}  # each share once
    for row in reversed(shown.values()):
        table.add_row(
            f"{row.hard_fraction:.1%}",
            f"{row.threshold:.4g}",
            f"{row.mean_ms:.2f}",
            _percent(row.ap),
            _percent(row.ap50),
            f"{_percent(row.random.mean)} ± {_percent(row.random.std)}",
            _percent(row.oracle_ap),
        )
    stdout.print(table)
    for index, (precision, ms) in enumerate(zip(result.exits, result.exit_ms, strict=True)):
        ap, ap50 = _percent(precision.ap), _percent(precision.ap50)
        stdout.print(f"all at exit {index}: AP {ap}, AP50 {ap50}, {ms:.2f} ms", soft_wrap=True)
    for line in quality_lines(result):
        stdout.print(line, soft_wrap=True)


def quality_lines(result: CurveResult) -> list[str]:
    """What the routing is worth, in words."""
    quality, random = result.quality, result.quality.over_random
    share = (
        "" if quality.share_of_oracle is None else f", {quality.share_of_oracle:.0%} of its gain"
    )
    alone = f"the last exit's detector alone ({result.last_exit_alone_ms:.2f} ms)"
    when = {0.0: "never faster", 1.0: "always faster"}.get(
        quality.break_even, f"faster up to {quality.break_even:.0%} hard"
    )
    return [
        f"router over random: {_signed(100 * random.mean)} ± {100 * random.std:.2f} AP "
        f"({result.seeds} seeds); below the oracle: {100 * quality.below_oracle:.2f}{share}",
        f"{when} than {alone}",
    ]


def _signed(value: float) -> str:
    """With its sign and two digits; +0.00, never -0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
