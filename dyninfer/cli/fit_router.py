"""``dyninfer fit-router``: a router for a frozen cascade."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import SUFFIX, Bundle
from dyninfer.bundle.writing import check_target
from dyninfer.cli.common import expand_sources, print_json, progress_bar, stdout, warn
from dyninfer.cli.options import (
    BundleArgument,
    DeviceOption,
    JsonOption,
    ProviderOption,
    with_option_groups,
)
from dyninfer.errors import ExportError
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import only_readable
from dyninfer.evaluation.router_quality import SHARES
from dyninfer.exporters.extras import require_export_extra
from dyninfer.exporters.router import FeatureKind
from dyninfer.runtime.opening import load

if TYPE_CHECKING:
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
            help="What is in the pictures, in COCO's format; if absent, the last exit is believed.",
        ),
    ] = None
    features: Annotated[
        FeatureKind,
        typer.Option(help="What it reads: detections of the exit, or averages of its features."),
    ] = FeatureKind.AUTO
    augment: Annotated[
        int, typer.Option(min=0, max=200, help="Further views of every picture.")
    ] = 12
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts of the cross-validation.")] = 5
    seeds: Annotated[
        int,
        typer.Option(min=2, max=200, help="Repetitions of the cross-validation, each split anew."),
    ] = 20
    device: DeviceOption = "cpu"
    provider: ProviderOption = None


@with_option_groups
def fit_router(
    bundle: BundleArgument,
    *,
    asked: FitRequest,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write; BUNDLE-routed.dyn if absent."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the new bundle if it exists.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Train a router for a cascade whose detectors stay as they are; writes a new bundle.

    A table compares the router, on pictures it was not trained on, with random choice and others.
    Unless it is better than random choice, nothing is written and the exit status is 1.

    Example: **dyninfer fit-router pair.dyn --images photos/ --annotations photos.json**
    """
    require_export_extra()
    from dyninfer.exporters.router.fit import refuse_useless
    from dyninfer.exporters.router.write import write_routed

    named = bundle if bundle.name else bundle.resolve()  # the working folder itself
    target = output or named.parent / f"{named.name.removesuffix(SUFFIX)}-routed{SUFFIX}"
    # before the pictures are run, not after
    if target.resolve() == bundle.resolve():
        raise ExportError(
            f"{target} is the bundle to read; fit-router never changes it: "
            "choose another name with --output"
        )
    check_target(target, overwrite=overwrite)
    fit = _run(bundle, asked)
    if json_output:
        print_json({**fit.record, "bundle": str(target)})
    else:
        print_comparison(fit)
    refuse_useless(fit)
    routers = [entry.router for entry in fit.exits]
    write_routed(Bundle.open(bundle), target, routers, fit.record, overwrite=overwrite)
    if not json_output:
        stdout.print(styled("wrote ", (str(target), "bold")))
        name = shlex.quote(str(target))
        stdout.print(f"next: dyninfer calibrate {name} --images OTHERS [--annotations COCO.json]")
        stdout.print(
            "      (pictures that the router was not fitted on, like those to be run later)"
        )


def _run(path: Path, asked: FitRequest) -> RouterFit:
    from dyninfer.exporters.router.fit import FitOptions, check_cascade, check_count, fit_routers

    options = FitOptions(asked.features, asked.augment, asked.folds, asked.seeds)
    paths = expand_sources(asked.images)
    with (
        progress_bar() as progress,
        load(path, device=asked.device, provider=asked.provider) as detector,
    ):
        check_cascade(detector)
        samples = load_samples(paths, asked.annotations, detector.class_names)
        task = progress.add_task("reading the pictures", total=len(samples.items))
        samples = only_readable(samples, lambda: progress.advance(task))
        for message in samples.warnings:
            warn(message)
        check_count(len(samples.items), options.folds)
        views = len(samples.items) * (1 + options.augment)
        progress.reset(task, description="running views of the pictures", total=views)
        return fit_routers(detector, samples, options, lambda: progress.advance(task))


def print_comparison(fit: RouterFit) -> None:
    """One table for every exit: each way of choosing the hard pictures, at 25 % and 50 %."""
    record = fit.record
    truth = "" if record["truth"] == "annotations" else ", as agreement with the last exit"
    for entry in fit.exits:
        comparison = entry.comparison
        names = list(dict.fromkeys(row.name for row in comparison.rows))
        columns = [column("chosen by", names, words=True)]
        for share in SHARES:
            rows = [comparison.row(name, share) for name in names]
            spreads = (f" ± {100 * r.ap50.std:.1f}" if r.ap50.std else "" for r in rows)
            ap50 = (f"{100 * r.ap50.mean:.1f}{s}" for r, s in zip(rows, spreads, strict=True))
            columns.append(column(f"AP50, {share:.0%} hard", ap50))
            columns.append(column("AP", (f"{100 * row.ap.mean:.1f}" for row in rows)))
        title = (
            f"Exit {entry.exit_index}: who goes on{truth}; mean and spread over "
            f"{record['seeds']} splits of {record['images']} pictures"
        )
        print_table(make_table(title, *columns), stdout)
        stdout.print(
            f"above random by {100 * comparison.gain:.1f} points of AP50, "
            f"standard error {100 * comparison.standard_error:.1f}; the oracle goes by each "
            "picture's own loss, so it is good but not the best possible"
        )
        if comparison.beats_random and comparison.within_chance:
            warn(
                f"the router of exit {entry.exit_index} is above random choice by less than random "
                f"choices differ among {record['images']} pictures; more pictures would tell"
            )
