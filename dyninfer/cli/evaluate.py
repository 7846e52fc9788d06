"""``dyninfer eval``: average precision or accuracy at one policy, or along the whole curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.figures import points
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.cli.calibrate import DEFAULT_TIME_IMAGES, TimeImagesOption, run_every_way
from dyninfer.cli.common import (
    check_output_file,
    expand_sources,
    print_json,
    progress_bar,
    read_speed,
    stdout,
    warn,
    warn_if_untrained,
)
from dyninfer.cli.options import (
    BundleArgument,
    EngineOptions,
    JsonOption,
    PixelsOption,
    SpeedOption,
    with_option_groups,
)
from dyninfer.cli.protocol import ProtocolOptions
from dyninfer.evaluation.calibrate import FITTED_ON_THESE, check_threshold, was_fitted_on
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.outcomes import TracePicture
from dyninfer.evaluation.routed_curve import ROWS, SEEDS, CurveResult, evaluate_curve
from dyninfer.evaluation.runs import PolicyResult, evaluate_policy
from dyninfer.evaluation.scoring import SCORING, score_key
from dyninfer.images.pictures import MAX_PIXELS
from dyninfer.plain_text import counted
from dyninfer.results.scores import Scores
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

Measured = tuple[dict[str, Any], Samples, Callable[[], None]]
"""What is written, the pictures that could be read, and what prints it."""

SHOWN_EVERY = 2  # rows of the curve


@dataclass(frozen=True)
class EvalRequest:
    """What is measured, on which pictures."""

    images: Annotated[list[Path], typer.Option("--images", "-i", help="Pictures or folders.")]
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="What is in the pictures: COCO JSON, a folder of VOC's XML or YOLO's txt files, "
            "or a YOLO data set's YAML. For a classifier: COCO JSON, or a CSV of file name "
            "and class; not needed where every picture lies in a folder named after its "
            "class.",
        ),
    ] = None
    speed: SpeedOption = None
    curve: Annotated[
        bool, typer.Option("--curve", help="Evaluate at every hard fraction, and rate the routing.")
    ] = False
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")
    ] = None
    time_images: TimeImagesOption = DEFAULT_TIME_IMAGES
    max_pixels: PixelsOption = MAX_PIXELS


@with_option_groups
def evaluate(
    bundle: BundleArgument,
    *,
    asked: EvalRequest,
    published: ProtocolOptions,
    engine: EngineOptions,
    json_output: JsonOption = False,
) -> None:
    """Measure COCO average precision, or accuracy, at one setting or from easy to hard.

    The curve compares the router with chance, which sends on the same number of pictures, and with
    an oracle, which knows what is in them and sends on those that gain most.

    Example: **dyninfer eval dy-yolov7.dyn --images val/ --annotations val.json --curve**
    """
    if asked.curve and asked.speed is not None:
        raise typer.BadParameter("give one of --speed and --curve")
    policy = None if asked.speed is None else read_speed(asked.speed)
    published.check(policy)
    if asked.output is not None:
        check_output_file(asked.output)
    paths = expand_sources(asked.images)
    with load(bundle, **asdict(engine), max_pixels=asked.max_pixels) as detector:
        if policy is not None:
            detector.policy = policy
        manifest = detector.manifest
        warn_if_untrained(manifest)
        samples = load_samples(paths, asked.annotations, manifest.class_names, manifest.task)
        if asked.curve:
            check_threshold(manifest, "no curve; leave --curve out")
        SCORING[manifest.task].check(samples, manifest.class_names)
        measure = _measure_curve if asked.curve else _measure_policy
        trace_of = published.trace_of(detector)
        document, read, show = measure(detector, samples, asked.time_images, trace_of)
    if published.protocol is not None:
        document["protocol"] = published.protocol.value
    for line in read.warnings:
        warn(line)
    if asked.output is not None:
        write_atomically(asked.output, json.dumps(document, indent=2) + "\n")
    if json_output:
        print_json(document)
    else:
        show()
        if published.protocol is not None:
            stdout.print(
                f"scores and shares: protocol {published.protocol.value}, on the source model; "
                "times: the bundle's engines"
            )


def _measure_policy(
    detector: Detector, samples: Samples, time_images: int, trace_of: TracePicture | None
) -> Measured:
    """Measure at the detector's policy, under a progress bar."""
    with progress_bar() as progress:
        task = progress.add_task("running", total=len(samples.items))
        found = evaluate_policy(
            detector, samples, time_images, lambda: progress.advance(task), trace_of
        )
    names = detector.manifest.way_names
    return policy_document(found), found.samples, lambda: print_policy(found, names)


def _measure_curve(
    detector: Detector, samples: Samples, time_images: int, trace_of: TracePicture | None
) -> Measured:
    """Measure the whole curve, under a progress bar."""
    outcomes, times, doubts = run_every_way(detector, samples, time_images, trace_of)
    for line in doubts:
        warn(line)
    with progress_bar() as progress:
        task = progress.add_task("comparing with chance", total=ROWS)
        found = evaluate_curve(
            detector.manifest, outcomes, times, SEEDS, lambda: progress.advance(task)
        )
    if was_fitted_on(detector.bundle, found.samples.sha256()):
        warn(FITTED_ON_THESE)
    return curve_document(found), found.samples, lambda: print_curve(found)


def policy_document(result: PolicyResult) -> dict[str, Any]:
    """Plain values, ready for JSON; scores in [0, 1]."""
    return {
        "pictures": len(result.samples.items),
        "policy": result.policy,
        result.title: {score_key(name): value for name, value in result.scores.items()},
        "exit_shares": list(result.exit_shares),
        "hard_fraction": result.hard_fraction,
        "mean_ms": result.mean_ms,
    }


def curve_document(result: CurveResult) -> dict[str, Any]:
    """Plain values, ready for JSON; scores in [0, 1]."""
    keys = [score_key(name) for name in result.metrics]

    def scored(scores: Scores) -> dict[str, float | None]:
        return dict(zip(keys, (scores.primary, scores.secondary), strict=True))

    pairs = zip(result.exits, result.exit_ms, strict=True)
    return {
        "pictures": len(result.samples.items),
        "exits": [{**scored(scores), "mean_ms": ms} for scores, ms in pairs],
        "last_exit_alone_ms": result.last_exit_alone_ms,
        "seeds": result.seeds,
        "rows": [
            {
                "threshold": row.threshold,
                "hard_fraction": row.hard_fraction,
                "mean_ms": row.mean_ms,
                **scored(row.scores),
                f"random_{keys[0]}": asdict(row.chance),
                f"oracle_{keys[0]}": row.oracle,
            }
            for row in result.rows
        ],
        "routing": asdict(result.quality),
        "advice": list(result.advice),
    }


def print_policy(result: PolicyResult, way_names: Sequence[str]) -> None:
    """All scores, and who went where."""
    routed = result.policy if len(result.exit_shares) > 1 else "one way for all"
    title = f"{counted(len(result.samples.items), 'picture')}, {routed}"
    columns = tuple(column(name, [points(value)]) for name, value in result.scores.items())
    print_table(Table(title, columns), stdout)
    pairs = zip(way_names, result.exit_shares, strict=True)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in pairs)
    stdout.print(f"took {shares}; {result.mean_ms:.2f} ms per picture")


def print_curve(result: CurveResult) -> None:
    """The curve beside chance and oracle, every second row of it, and the routing's quality."""
    metric, second = result.metrics
    shown = {row.hard_fraction: row for row in result.rows[::-SHOWN_EVERY]}  # each share once
    rows = list(reversed(shown.values()))
    by_chance = (f"{points(row.chance.mean)} ± {points(row.chance.std)}" for row in rows)
    table = make_table(
        counted(len(result.samples.items), "picture"),
        column("hard", (f"{row.hard_fraction:.1%}" for row in rows)),
        column("threshold", (f"{row.threshold:.4g}" for row in rows)),
        column("ms", (f"{row.mean_ms:.2f}" for row in rows)),
        column(metric, (points(row.scores.primary) for row in rows)),
        column(second, (points(row.scores.secondary) for row in rows)),
        column(f"random {metric}", by_chance),
        column(f"oracle {metric}", (points(row.oracle) for row in rows)),
    )
    print_table(table, stdout)
    for index, (scores, ms) in enumerate(zip(result.exits, result.exit_ms, strict=True)):
        found = f"{metric} {points(scores.primary)}, {second} {points(scores.secondary)}"
        stdout.print(f"all at exit {index}: {found}, {ms:.2f} ms")
    for line in quality_lines(result):
        stdout.print(line)


def quality_lines(result: CurveResult) -> list[str]:
    """What the routing is worth, in words."""
    quality, random = result.quality, result.quality.over_random
    share = (
        "" if quality.share_of_oracle is None else f", {quality.share_of_oracle:.0%} of its gain"
    )
    alone = f"the last exit's network alone ({result.last_exit_alone_ms:.2f} ms)"
    when = {0.0: "never faster", 1.0: "always faster"}.get(
        quality.break_even, f"faster up to {quality.break_even:.0%} hard"
    )
    low, high = quality.break_even_interval
    within = "" if low == high else f"; as times vary, up to {low:.0%} to {high:.0%} hard"
    return [
        f"router over random: {signed(100 * random.mean)} ± {100 * random.std:.2f} "
        f"{result.metrics[0]} ({result.seeds} seeds); "
        f"below the oracle: {100 * quality.below_oracle:.2f}{share}",
        f"{when} than {alone}{within}",
        *result.advice,
    ]


def signed(value: float) -> str:
    """With its sign and two digits; +0.00, never -0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"
