"""Measure the project's speed limits: ``python -m dyninfer.benchmarks.lab.limits --help``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dyninfer.benchmarks.lab.limits.groups import GROUPS, check_groups, measure_apart
from dyninfer.benchmarks.lab.limits.record import (
    LimitResult,
    LimitsRecord,
    ended_run,
    limits_markdown,
    print_limits,
    read_limits,
    write_limits,
)
from dyninfer.benchmarks.lab.random_models import export_random
from dyninfer.benchmarks.machine import MachineRecorder, describe_machine
from dyninfer.errors import DyninferError

VARIANT = "dy-yolov7"


def main(
    only: Annotated[
        str, typer.Option(help=f"Groups of rows, separated by commas: {', '.join(GROUPS)}.")
    ] = ",".join(GROUPS),
    rounds: Annotated[
        int | None, typer.Option(min=2, help="Of every comparison; each group's own if absent.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the model's input in pixels.")] = 640,
    width_divisor: Annotated[
        int, typer.Option(min=1, help="Divide all widths by this, to try it out.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, writable=True, help="Where the JSON record goes."
        ),
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Print a record as Markdown, and measure nothing.")
    ] = None,
) -> None:
    """Measure every speed limit of the project, each against what it is compared with.

    Takes about half an hour and 5 GB of memory at full size, on a machine that does nothing else.
    Exit status 1 tells that a limit was exceeded or could not be measured.

    Example: python -m dyninfer.benchmarks.lab.limits -o benchmarks/results/limits-cpu.json
    """
    console = Console()
    try:
        if show is not None:
            typer.echo(limits_markdown(read_limits(show)))
            return
        groups = check_groups(only)
        record = _measure(groups, rounds, image_size, width_divisor, console)
    except DyninferError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    print_limits(record, console)
    if output is not None:
        write_limits(record, output)
    if record.failures or not all(result.holds for result in record.results):
        raise typer.Exit(1)


def _measure(
    groups: tuple[str, ...],
    rounds: int | None,
    image_size: int,
    width_divisor: int,
    console: Console,
) -> LimitsRecord:
    machine = describe_machine()
    results: list[LimitResult] = []
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, MachineRecorder() as recorder:
        console.print(f"exporting {VARIANT} with random weights ...")
        bundle = export_random(VARIANT, image_size, width_divisor, Path(folder))
        for group in groups:
            console.print(f"{group}: {GROUPS[group].what} ...")
            try:
                results += measure_apart(group, bundle, rounds)
            except DyninferError as error:  # what else is measured is worth keeping
                failures[group] = str(error)
        log = recorder.log()
    width = f" at 1/{width_divisor} width" if width_divisor > 1 else ""
    return LimitsRecord(
        **ended_run(),
        machine=machine,
        log=log,
        model=f"{VARIANT}{width}, random weights, {image_size}x{image_size}",
        results=tuple(results),
        failures=failures,
    )


if __name__ == "__main__":
    typer.run(main)
