"""Measure the project's speed limits: ``python -m dyninfer.benchmarks.lab.limits --help``."""

from __future__ import annotations

import difflib
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.benchmarks.lab.limits import (
    batching,
    full_size,
    overhead,
    postprocessing,
    preprocessing,
    streaming,
)
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
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.errors import DyninferError, EngineRunError, InputError

VARIANT = "dy-yolov7"


@dataclass(frozen=True)
class Group:
    """Limits that a function measures together: of the full-size bundle, if it takes one."""

    what: str
    measure: Callable[..., list[LimitResult]]
    needs_bundle: bool
    rounds: int


GROUPS: Mapping[str, Group] = {
    "preprocessing": Group("a picture to a tensor", preprocessing.measure, False, 100),
    "postprocessing": Group("candidates to detections", postprocessing.measure, False, 30),
    "overhead": Group("stages that do nothing", overhead.measure, False, 30),
    "loading": Group("opening a bundle", full_size.measure_loading, True, 10),
    "memory": Group("peak of fresh processes", full_size.measure_memory_of_graph, True, 3),
    "engines": Group("the stages alone", full_size.measure_engines, True, 30),
    "end_to_end": Group("a frame to detections", full_size.measure_end_to_end, True, 15),
    "streaming": Group("a clip, frame by frame", streaming.measure, False, 30),
    "batching": Group("eight images at once", batching.measure, True, 10),
}


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

    Takes about a quarter of an hour and 5 GB of memory at full size, on a machine that does nothing
    else. Exit status 1 tells that a limit was exceeded or could not be measured.

    Example: python -m dyninfer.benchmarks.lab.limits -o benchmarks/results/limits-cpu.json
    """
    terminal = Terminal()
    try:
        if show is not None:
            typer.echo(limits_markdown(read_limits(show)))
            return
        groups = check_groups(only)
        record = _measure(groups, rounds, image_size, width_divisor, terminal)
    except DyninferError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    print_limits(record, terminal)
    if output is not None:
        write_limits(record, output)
    if record.failures or not all(result.holds for result in record.results):
        raise typer.Exit(1)


def _measure(
    groups: tuple[str, ...],
    rounds: int | None,
    image_size: int,
    width_divisor: int,
    terminal: Terminal,
) -> LimitsRecord:
    machine = describe_machine()
    results: list[LimitResult] = []
    failures: dict[str, str] = {}
    with scratch_folder() as folder, MachineRecorder() as recorder:
        bundle = folder
        if any(GROUPS[group].needs_bundle for group in groups):
            terminal.print(f"exporting {VARIANT} with random weights ...")
            bundle = export_random(VARIANT, image_size, width_divisor, folder)
        for group in groups:
            terminal.print(f"{group}: {GROUPS[group].what} ...")
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


def check_groups(text: str) -> tuple[str, ...]:
    """``engines,memory`` -> the groups' names, in the order of :data:`GROUPS`.

    Raises:
        InputError: a name is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{name!r} is not a group of limits, expected some of {', '.join(GROUPS)}{hint}"
            )
    if not names:
        raise InputError(f"no group of limits is named, expected some of {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in names)


def measure_apart(name: str, bundle: Path, rounds: int | None) -> list[LimitResult]:
    """Measure a group in a fresh process, so that nothing of another group is left in it.

    Raises:
        DyninferError: what the group's own ``measure`` raises, or its process was ended.
    """
    group = GROUPS[name]
    arguments = (bundle,) if group.needs_bundle else ()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        try:
            return pool.submit(group.measure, *arguments, rounds or group.rounds).result()
        except BrokenProcessPool:
            raise EngineRunError(
                f"the process of the group {name} was ended, which is what a system short "
                f"of memory does; measure it alone with --only {name}"
            ) from None


if __name__ == "__main__":
    typer.run(main)
