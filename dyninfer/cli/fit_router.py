"""``dyninfer fit-router``: a router for a frozen cascade, or a chooser of image sizes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dyninfer.benchmarks.report.figures import points
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.manifest import SelectRoute
from dyninfer.bundle.writing import check_target
from dyninfer.cli.common import expand_sources, print_json, progress_bar, stdout, warn
from dyninfer.cli.fit_chooser import print_chooser
from dyninfer.cli.options import (
    BundleArgument,
    DeviceOption,
    JsonOption,
    ProviderOption,
    TrustedKeyOption,
    with_option_groups,
)
from dyninfer.errors import ExportError
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import only_readable
from dyninfer.evaluation.router_quality import (
    EXISTING,
    FITTED,
    MAXIMUM_CONFIDENCE,
    RANDOM,
    MeanStd,
    Metric,
    RouterComparison,
)
from dyninfer.evaluation.worth import no_better
from dyninfer.exporters.extras import require_export_extra
from dyninfer.exporters.router import FeatureKind
from dyninfer.plain_text import counted
from dyninfer.runtime.opening import load

if TYPE_CHECKING:
    from dyninfer.exporters.router.choosing import ChooserFit
    from dyninfer.exporters.router.fit import RouterFit


@dataclass(frozen=True)
class FitRequest:
    """What routers are fitted on, and how."""

    images: Annotated[
        list[Path],
        typer.Option("--images", "-i", help="Pictures or folders; at least two for each fold."),
    ]
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="What is in the pictures, in COCO, VOC or YOLO format. Default: what the last "
            "exit finds counts as the truth.",
        ),
    ] = None
    features: Annotated[
        FeatureKind,
        typer.Option(
            help="What the router reads: the exit's detections, or averages of its features."
        ),
    ] = FeatureKind.AUTO
    augment: Annotated[
        int, typer.Option(min=0, max=200, help="Number of augmented views of each picture.")
    ] = 12
    folds: Annotated[int, typer.Option(min=2, max=20, help="Number of cross-validation folds.")] = 5
    seeds: Annotated[
        int,
        typer.Option(
            min=2, max=200, help="Number of cross-validation runs, each with its own split."
        ),
    ] = 20
    metric: Annotated[Metric, typer.Option(help="The metric by which routers are judged.")] = (
        Metric.AP
    )
    found_confidence: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Without annotations: confidence above which a detection of the last exit counts. "
            "Default: from the detector's own confidences.",
        ),
    ] = None
    device: DeviceOption = "cpu"
    provider: ProviderOption = None
    trusted_key: TrustedKeyOption = None


@with_option_groups
def fit_router(
    bundle: BundleArgument,
    *,
    asked: FitRequest,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write. Default: BUNDLE-routed.dyn."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the new bundle if it exists.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Train the router of a cascade, or the chooser among the sizes of one detector.

    A new bundle is written; the detectors stay as they are.

    A table compares the router with random choice and others, on pictures that it was not trained
    on. If an exit's maximum confidence chooses better, that becomes the router. If nothing is
    better than random choice, nothing is written and the exit status is 1. A chooser is compared at
    the cost of each image size, also with that size for all pictures.

    Example: **dyninfer fit-router pair.dyn --images photos/ --annotations photos.json**
    """
    require_export_extra("dyninfer fit-router")
    from dyninfer.exporters.router.choosing import refuse_useless_chooser
    from dyninfer.exporters.router.fit import RouterFit, refuse_useless
    from dyninfer.exporters.router.write import write_chosen, write_routed

    named = bundle if bundle.name else bundle.resolve()  # the working folder itself
    target = output or named.parent / f"{named.name.removesuffix(SUFFIX)}-routed{SUFFIX}"
    # before the pictures are run, not after
    if target.resolve() == bundle.resolve():
        raise ExportError(
            f"{target} is the bundle to read; fit-router never changes it: "
            "choose another name with --output"
        )
    check_target(target, overwrite=overwrite)
    fit, read = _run(bundle, asked)
    if json_output:
        print_json({**fit.record, "bundle": str(target)})
    if isinstance(fit, RouterFit):
        if not json_output:
            print_comparison(fit)
        refuse_useless(fit)
        routers = [entry.router for entry in fit.exits]
        write_routed(read, target, routers, fit.record, overwrite=overwrite)
    else:
        if not json_output:
            print_chooser(fit)
        refuse_useless_chooser(fit)
        write_chosen(read, target, fit, overwrite=overwrite)
    if not json_output:
        stdout.print(styled("wrote ", (str(target), "bold")))
        name = shlex.quote(str(target))
        stdout.print(f"next: dyninfer calibrate {name} --images OTHERS [--annotations COCO.json]")
        stdout.print(
            "      (pictures that the router was not fitted on, like those to be run later)"
        )


def _run(path: Path, asked: FitRequest) -> tuple[RouterFit | ChooserFit, Bundle]:
    """Routers for a cascade, or a chooser for a select route, under a progress bar."""
    from dyninfer.exporters.router.choosing import fit_chooser
    from dyninfer.exporters.router.fit import FitOptions, check_count, check_fittable, fit_routers

    options = FitOptions(
        asked.features,
        asked.augment,
        asked.folds,
        asked.seeds,
        metric=asked.metric,
        found_confidence=asked.found_confidence,
    )
    paths = expand_sources(asked.images)
    with (
        progress_bar() as progress,
        load(
            path, device=asked.device, provider=asked.provider, trusted_key=asked.trusted_key
        ) as detector,
    ):
        check_fittable(detector)
        samples = load_samples(paths, asked.annotations, detector.class_names)
        task = progress.add_task("reading the pictures", total=len(samples.items))
        samples = only_readable(samples, lambda: progress.advance(task))
        for message in samples.warnings:
            warn(message)
        check_count(len(samples.items), options.folds)
        runs = options.runs(samples)
        progress.reset(task, description="running views of the pictures", total=runs)
        chosen = isinstance(detector.manifest.route, SelectRoute)
        fit = (fit_chooser if chosen else fit_routers)(
            detector, samples, options, lambda: progress.advance(task)
        )
        return fit, detector.bundle


def print_comparison(fit: RouterFit) -> None:
    """A table for every exit: each way of choosing the hard pictures, between none and all hard."""
    record, truth = fit.record, ""
    if record["found_confidence"] is not None:
        truth = f", the truth being what the last exit finds above {record['found_confidence']:.3g}"
    for entry in fit.exits:
        title = (
            f"Exit {entry.exit_index}: choosing hard pictures{truth}; mean and spread over "
            f"{record['seeds']} splits of {record['images']} pictures"
        )
        print_table(_table(title, entry.comparison), stdout)
        for line in _verdict(entry.comparison):
            stdout.print(line)
        for message in _doubts(entry.exit_index, entry.comparison, record["images"]):
            warn(message)


def _table(title: str, comparison: RouterComparison) -> Table:
    """One row for each share and way of choosing it; the ends leave nothing to choose."""
    none, every = ((points(end.primary), points(end.secondary)) for end in comparison.ends)
    rows = [("0%", "none", *none)]
    rows += [(f"{r.share:.0%}", r.name, _spread(r.ap), _spread(r.ap50)) for r in comparison.rows]
    hard, names, ap, ap50 = zip(*rows, ("100%", "all", *every), strict=True)
    chosen = column("chosen by", names, words=True)
    return make_table(title, column("hard", hard), chosen, column("AP", ap), column("AP50", ap50))


def _spread(found: MeanStd) -> str:
    return points(found.mean) + (f" ± {points(found.std)}" if found.std else "")


def _verdict(comparison: RouterComparison) -> list[str]:
    """Who won, and by how much."""
    gain, metric = comparison.gain, comparison.metric.label
    lines = [
        f"{comparison.winner}: above random by {100 * gain.mean:.1f} points of {metric}, standard "
        f"error {100 * gain.standard_error:.1f}; the oracle ranks pictures by their own loss, "
        "which is good but not the best possible"
    ]
    if comparison.winner != FITTED:
        fitted = comparison.gains[FITTED]
        lines.append(
            f"{comparison.winner} is the router: the fitted one is above random by "
            f"{100 * fitted.mean:.1f} points, standard error {100 * fitted.standard_error:.1f}"
        )
    return lines


def _doubts(index: int, comparison: RouterComparison, pictures: int) -> list[str]:
    """What figures say against the router of an exit, or against the cascade."""
    metric, winner = comparison.metric, comparison.winner
    first, last = (end.primary for end in comparison.ends)
    found = [no_better("AP", (first, last), (f"exit {index}", "last exit"), pictures)]
    if not comparison.beats_random:
        return [line for line in found if line is not None]
    if comparison.within_chance:
        found.append(
            f"the router of exit {index} is better than random choice by less than random "
            f"choices vary on {counted(pictures, 'picture')}; fit it on more pictures to be sure"
        )
    means, own = comparison.means(metric), comparison.means(Metric.AP)
    figures = f"{metric.label} {100 * means[winner]:.1f} over the shares"
    by_hand = "the difference is within what random choices vary by"
    if MAXIMUM_CONFIDENCE not in comparison.gains:
        by_hand = "but the scores come from the head, which runs after the router"
    for name, remedy in ((EXISTING, "keep it"), (MAXIMUM_CONFIDENCE, by_hand)):
        if means.get(name, 0.0) > means[winner]:
            found.append(
                f"{name} of exit {index} chooses better than the {winner} "
                f"({100 * means[name]:.1f}, {figures}): {remedy}"
            )
    if own[winner] < own[RANDOM]:
        found.append(
            f"by AP the {winner} of exit {index} is worse than random choice: "
            f"{100 * own[winner]:.1f} over the shares, random {100 * own[RANDOM]:.1f}"
        )
    return [line for line in found if line is not None]
