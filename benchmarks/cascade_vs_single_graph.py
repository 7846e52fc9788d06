"""Separate engines against one ONNX graph with ``If`` and against PyTorch, on full-size models.

``python -m dyninfer.benchmarks.cascade_vs_single_graph --help`` tells how to run it, and
``benchmarks/README.md`` what is in each figure.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from dyninfer.benchmarks.cascade_record import (
    SCHEMA_VERSION,
    CascadeRecord,
    compare_memory,
    comparisons_of,
    faster_kind,
    timings_of,
    write_record,
)
from dyninfer.benchmarks.cascade_tables import print_record
from dyninfer.benchmarks.contenders import Call, Kind, Setup, Side
from dyninfer.benchmarks.contest import (
    SETTLE_MS,
    Entry,
    Samples,
    measure_memory,
    time_in_turns,
)
from dyninfer.benchmarks.machine import describe_machine, load_average
from dyninfer.errors import DyninferError
from dyninfer.hardware import usable_cores

MODULE = "dyninfer.benchmarks.cascade_vs_single_graph"
PILOT_ROUNDS = 4
POOLS = (Kind.IF_OWN_POOL, Kind.IF_SHARED_POOL)

Setups = dict[Kind, Setup]


@dataclass(frozen=True)
class Plan:
    """What is to be measured. All widths of the variant are divided by ``width_divisor``."""

    variant: str
    image_size: int
    width_divisor: int
    rounds: int
    settle_ms: float

    @property
    def model_name(self) -> str:
        """The variant and, where it was made narrower, by how much."""
        narrower = f" at 1/{self.width_divisor} width" if self.width_divisor > 1 else ""
        return self.variant + narrower


def main(
    variant: Annotated[
        str, typer.Option(help="dy-yolov7, dy-yolov7x or dy-yolov7-w6.")
    ] = "dy-yolov7",
    image_size: Annotated[int, typer.Option(help="Side of the square input in pixels.")] = 640,
    rounds: Annotated[int, typer.Option(min=2, help="Runs of each contender, per exit.")] = 30,
    width_divisor: Annotated[
        int, typer.Option(min=1, help="Divide all widths by this, to try the benchmark out.")
    ] = 1,
    settle_ms: Annotated[
        float, typer.Option(min=0, help="Wait before each run, so that no other's threads spin.")
    ] = SETTLE_MS,
    output: Annotated[Path | None, typer.Option(help="Where the JSON record goes.")] = None,
) -> None:
    """Time dyninfer, one ONNX graph with If, and eager PyTorch in turns; batch 1, both exits.

    Example: python -m dyninfer.benchmarks.cascade_vs_single_graph --rounds 30
    --output benchmarks/results/dy-yolov7-640.json
    """
    console = Console()
    plan = Plan(variant, image_size, width_divisor, rounds, settle_ms)
    try:
        with tempfile.TemporaryDirectory() as folder:
            console.print(f"exporting {plan.model_name} with random weights ...")
            record = hold_contest(plan, make_setups(plan, Path(folder)), console)
    except DyninferError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if output is not None:
        write_record(record, output)
    print_record(record, console)


def make_setups(plan: Plan, folder: Path) -> Setups:
    """Export the model with random weights into ``folder``; what each contender opens.

    Raises:
        InputError: the variant or the image size is not a possible one.
    """
    from dyninfer.benchmarks.random_models import export_random, random_detector
    from dyninfer.benchmarks.single_graph import write_single_graph
    from dyninfer.bundle import Bundle

    side = plan.image_size
    model = random_detector(plan.variant, plan.width_divisor)
    made = export_random(model, (side, side), folder)
    graph = write_single_graph(Bundle.open(made.bundle), folder / "single_graph.onnx")
    sources = {
        Kind.DYNINFER: made.bundle,
        Kind.EAGER: made.checkpoint,
        Kind.EAGER_FOLDED: made.checkpoint,
    }
    return {
        kind: Setup(kind, str(sources.get(kind, graph)), side, side, usable_cores())
        for kind in Kind
    }


def hold_contest(plan: Plan, setups: Setups, console: Console) -> CascadeRecord:
    """Choose the single graph's better thread pool, time everybody in turns, measure memory."""
    machine = describe_machine()
    pilot = timings_of(_choose_pool(plan, setups, console))
    timings = timings_of(_time_all(plan, setups, faster_kind(pilot), console))
    console.print("measuring peak memory in fresh processes ...")
    memory = tuple(measure_memory(setup) for setup in setups.values())
    return CascadeRecord(
        schema_version=SCHEMA_VERSION,
        benchmark="cascade_vs_single_graph",
        command=shlex.join(["python", "-m", MODULE, *sys.argv[1:]]),
        finished_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=machine,
        load_average_after_1min=load_average(),
        variant=plan.model_name,
        weights="random",
        height=plan.image_size,
        width=plan.image_size,
        batch=1,
        rounds=plan.rounds,
        settle_ms=plan.settle_ms,
        pool_pilot=pilot,
        timings=timings,
        comparisons=comparisons_of(timings),
        memory=memory,
        memory_comparison=compare_memory(memory, POOLS),
    )


def _choose_pool(plan: Plan, setups: Setups, console: Console) -> list[Samples]:
    """A short contest between the single graph's two thread pools."""
    entries = [Entry(kind, Call.ENGINES) for kind in POOLS]
    return _time(plan, setups, entries, PILOT_ROUNDS, "choosing a thread pool", console)


def _time_all(plan: Plan, setups: Setups, rival: Kind, console: Console) -> list[Samples]:
    entries = [Entry(kind, call) for kind in (Kind.DYNINFER, rival) for call in Call]
    entries += [Entry(kind, Call.API) for kind in Kind if kind.is_pytorch]
    return _time(plan, setups, entries, plan.rounds, "timing in turns", console)


def _time(
    plan: Plan,
    setups: Setups,
    entries: Sequence[Entry],
    rounds: int,
    what: str,
    console: Console,
) -> list[Samples]:
    kinds = {entry.kind for entry in entries}
    chosen = [setup for kind, setup in setups.items() if kind in kinds]
    with Progress(console=console, transient=True, refresh_per_second=1) as progress:
        task = progress.add_task(what, total=rounds * len(Side))
        return time_in_turns(
            chosen,
            entries,
            rounds,
            plan.settle_ms,
            lambda: progress.advance(task),
        )


if __name__ == "__main__":
    typer.run(main)
