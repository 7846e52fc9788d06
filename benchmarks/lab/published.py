"""DynamicDet's published speed as tables, with what small models predict of it.

``python -m dyninfer.benchmarks.lab.published`` prints the tables of
``benchmarks/protocols/published-table.md``. With a record of ``dyninfer bench`` of one of the three
models it prints that record's times beside the published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.benchmarks.lab.published_times import (
    PUBLISHED,
    SOURCE,
    V100_TENSOR_TFLOPS,
    VARIANTS,
    PublishedRow,
    convolutions,
    fit_convolutions,
    fit_fixed,
    line_of_ends,
    rows_of,
)
from dyninfer.benchmarks.latency.record import BenchRecord, MeasuredBundle
from dyninfer.benchmarks.latency.record_file import read_record
from dyninfer.benchmarks.latency.step_costs import predict_ms
from dyninfer.errors import DyninferError, InputError

STATIC_FPS = (110, 100, 90, 80, 70, 60, 50)
_SAME_GFLOPS = 0.02
"""Input sizes and classes change a model's GFLOPs; a variant is known by them to this share."""


@dataclass(frozen=True)
class Beside:
    """A published row, and a record's milliseconds at its hard fraction, batch 1.

    ``engines_ms`` is of stages alone, ``whole_ms`` from the decoded picture to detections.
    """

    row: PublishedRow
    engines_ms: float
    whole_ms: float


def beside_published(record: BenchRecord) -> tuple[Beside, ...]:
    """The rows of the record's variant, beside what its latency model says.

    Raises:
        InputError: the record has no latency model, or is of none of the published models.
    """
    if record.model is None:
        why = record.missing.get("model", "it was not fitted")
        raise InputError(f"the record has no latency model: {why}; bench several hard fractions")
    steps, stages = record.model.steps, {stage.name for stage in record.measured.stages}
    engines = [step for step in steps if step.name in stages]
    found = []
    for row in rows_of(_variant_of(record.measured)):
        engines_ms = predict_ms(engines, 1, row.hard_fraction)
        found.append(Beside(row, engines_ms, predict_ms(steps, 1, row.hard_fraction)))
    return tuple(found)


def _variant_of(measured: MeasuredBundle) -> str:
    """The published variant with as many GFLOPs for a hard image."""
    heads = "head of exit 0"
    macs = [stage.macs or 0 for stage in measured.stages if stage.role != heads]
    gflops = 2e-9 * sum(macs)
    for variant in VARIANTS:
        if abs(gflops / line_of_ends(variant, "gflops").hard - 1) < _SAME_GFLOPS:
            return variant
    known = ", ".join(f"{VARIANTS[v]} {line_of_ends(v, 'gflops').hard:g}" for v in VARIANTS)
    raise InputError(
        f"{measured.bundle} has {gflops:.4g} GFLOPs for a hard image, which is none of the "
        f"published models ({known}); expected one of them at its published input size"
    )


def line_table() -> str:
    """Each variant's first and last row give a line in the hard fraction; the others test it."""
    lines = []
    for variant, name in VARIANTS.items():
        line, rows = line_of_ends(variant), rows_of(variant)
        for row in rows:
            fps = 1e3 / line.at(row.hard_fraction)
            end = row in (rows[0], rows[-1])
            error = "fitted" if end else f"{100 * (fps / row.fps - 1):+.1f} %"
            lines.append(
                f"{name} | {_mix(row)} | {row.gflops:g} | {row.ap:g} | {row.fps:g} | {fps:.1f} | "
                f"{error}"
            )
    return markdown_table("model | easy / hard | GFLOPs | AP | FPS | by the line | error", lines)


def ratio_table() -> str:
    """How much longer a hard image takes, against how much more there is to compute."""
    lines = []
    for variant, name in VARIANTS.items():
        ms, gflops = line_of_ends(variant), line_of_ends(variant, "gflops")
        lines.append(
            f"{name} | {ms.easy:.2f} | {ms.hard:.2f} | {ms.hard / ms.easy:.2f} | "
            f"{gflops.easy:.1f} | {gflops.hard:.1f} | {gflops.hard / gflops.easy:.2f}"
        )
    return markdown_table(
        "model | easy ms | hard ms | ratio | easy GFLOPs | hard GFLOPs | ratio", lines
    )


def fits_table() -> str:
    """What the fits come to, and how far they are off."""
    alone = ((f"{name} alone", rows_of(variant)) for variant, name in VARIANTS.items())
    fits = [(what, fit_fixed(rows), rows) for what, rows in alone]
    fits.append(("all, one fixed time", fit_fixed(PUBLISHED), PUBLISHED))
    fits.append(("all, by convolutions", fit_convolutions(PUBLISHED), PUBLISHED))
    lines = []
    for what, model, rows in fits:
        errors = [100 * abs(model.error(row)) for row in rows]
        peak = 100 * model.tflops / V100_TENSOR_TFLOPS
        lines.append(
            f"{what} | {model.fixed_ms:.1f} | {model.convolution_ms:.3f} | {model.tflops:.1f} | "
            f"{peak:.0f} % | {sum(errors) / len(errors):.1f} % | {max(errors):.1f} %"
        )
    head = "fitted to | fixed ms | ms a convolution | TFLOP/s | share of peak | mean | largest"
    return markdown_table(head, lines)


def parts_table() -> str:
    """Where the time of an image goes, by convolutions and GFLOPs."""
    model, lines = fit_convolutions(PUBLISHED), []
    for variant, name in VARIANTS.items():
        for side in ("easy", "hard"):
            count, gflops, by_line = (
                getattr(line, side)
                for line in (
                    convolutions(variant),
                    line_of_ends(variant, "gflops"),
                    line_of_ends(variant),
                )
            )
            started, computed = model.convolution_ms * count, model.gflop_ms * gflops
            lines.append(
                f"{name} | {side} | {count:.0f} | {started:.1f} | {computed:.1f} | "
                f"{started + computed:.1f} | {by_line:.1f}"
            )
    head = "model | image | convolutions | starting them, ms | computing, ms | both, ms"
    return markdown_table(f"{head} | by the line", lines)


def break_even_table() -> str:
    """Hard fraction up to which each is as fast as a static detector."""
    lines = []
    for fps in STATIC_FPS:
        fractions = [line_of_ends(variant).fraction_up_to(1e3 / fps) for variant in VARIANTS]
        words = {0.0: "never", 1.0: "always"}
        cells = (words.get(fraction, f"{100 * fraction:.0f} %") for fraction in fractions)
        lines.append(" | ".join([f"{fps} FPS", *cells]))
    return markdown_table(" | ".join(["static detector", *VARIANTS.values()]), lines)


def beside_table(found: Sequence[Beside]) -> str:
    """A record beside the published rows."""
    lines = [
        f"{VARIANTS[b.row.variant]} | {_mix(b.row)} | {b.row.ms:.2f} | {b.engines_ms:.2f} | "
        f"{b.whole_ms:.2f} | {b.row.ms / b.engines_ms:.2f}"
        for b in found
    ]
    head = "model | easy / hard | published ms | engines ms | whole call ms | published / engines"
    return markdown_table(head, lines)


def _mix(row: PublishedRow) -> str:
    return f"{100 * (1 - row.hard_fraction):.0f} / {100 * row.hard_fraction:.0f}"


def markdown_table(head: str, lines: Sequence[str]) -> str:
    """A table from lines of cells."""
    rule = " | ".join(["---"] * (head.count("|") + 1))
    return "\n".join(f"| {line} |" for line in (head, rule, *lines))


def main(
    record: Annotated[
        Path | None, typer.Argument(help="What dyninfer bench --output wrote, of one of them.")
    ] = None,
) -> None:
    """Print what was published of DynamicDet's speed, and what two small models say of it.

    For example: python -m dyninfer.benchmarks.lab.published v100.json
    """
    try:
        tables = (
            [line_table(), ratio_table(), fits_table(), parts_table(), break_even_table()]
            if record is None
            else [beside_table(beside_published(read_record(record)))]
        )
    except DyninferError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    typer.echo("\n\n".join([*tables, SOURCE]))


if __name__ == "__main__":
    typer.run(main)
