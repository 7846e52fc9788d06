"""Shows the machine: ``python -m dyninfer.benchmarks.machine --help``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from dyninfer.benchmarks.machine.describe import describe_machine
from dyninfer.benchmarks.machine.energy_sources import find_energy_meter
from dyninfer.benchmarks.machine.recorder import MachineRecorder
from dyninfer.benchmarks.machine.words import machine_rows, warnings_of
from dyninfer.benchmarks.report.conditions import readings_table
from dyninfer.benchmarks.report.table import (
    Pairs,
    Table,
    column,
    make_table,
    print_block,
    print_table,
)
from dyninfer.benchmarks.report.terminal import Terminal, never_fail_to_print


def main(
    seconds: Annotated[
        float, typer.Option(min=0, help="Also watch it for this many seconds.")
    ] = 2.0,
    device: Annotated[str, typer.Option(help="cpu, or a GPU to be watched: cuda:0.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what a benchmark would record of this machine, and what speaks against measuring now.

    Example: python -m dyninfer.benchmarks.machine --device cuda:0 --seconds 10
    """
    machine = describe_machine()
    with MachineRecorder(device=device) as recorder:
        time.sleep(seconds)
    log = recorder.log()
    meter, energy = find_energy_meter(device)
    if meter is not None:
        meter.close()
    doubts = warnings_of(machine, log)
    if as_json:
        found = {"machine": asdict(machine), "log": asdict(log)}
        print(json.dumps(found | {"energy": energy, "warnings": doubts}, indent=1))
        return
    never_fail_to_print()
    terminal = Terminal()
    print_block(Pairs("", tuple(machine_rows(machine))), terminal)
    terminal.print()
    print_table(readings_table(log), terminal)
    print_table(_missing_table({**machine.missing, **log.missing}), terminal)
    terminal.print(f"energy: {energy}", soft_wrap=False)
    for doubt in doubts:
        terminal.print(f"warning: {doubt}", soft_wrap=False)


def _missing_table(missing: dict[str, str]) -> Table:
    """One row for each reason: a GPU may refuse a dozen questions in the same words."""
    names_of: dict[str, list[str]] = {}
    for name, why in missing.items():
        names_of.setdefault(why, []).append(name)
    return make_table(
        "Not known",
        column("what", map(", ".join, names_of.values()), words=True),
        column("why", names_of, words=True),
    )


if __name__ == "__main__":
    typer.run(main)
