"""Shows the machine: ``python -m dyninfer.benchmarks.machine --help``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dyninfer.benchmarks.machine.caveats import warnings_of
from dyninfer.benchmarks.machine.describe import Machine, describe_machine
from dyninfer.benchmarks.machine.energy import find_energy_meter
from dyninfer.benchmarks.machine.log import MachineLog
from dyninfer.benchmarks.machine.recorder import MachineRecorder
from dyninfer.benchmarks.machine.table import machine_rows


def main(
    seconds: Annotated[float, typer.Option(min=0, help="Watch it for so long as well.")] = 2.0,
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
    console = Console(highlight=False)
    console.print(_machine_table(machine))
    console.print(_log_table(log))
    console.print(_missing_table({**machine.missing, **log.missing}))
    console.print(f"energy: {energy}", markup=False)
    for doubt in doubts:
        console.print(f"[yellow]warning:[/yellow] {escape(doubt)}")


def _machine_table(machine: Machine) -> Table:
    table = Table("machine", "", box=None)
    for name, value in machine_rows(machine):
        table.add_row(escape(name), escape(value))
    return table


def _log_table(log: MachineLog) -> Table:
    table = Table(f"watched for {log.seconds:.1f} s", "low", "median", "high", box=None)
    for name, seen in log.readings.items():
        values = (seen.low, seen.median, seen.high)
        table.add_row(escape(name), *(f"{value:.4g}" for value in values))
    return table


def _missing_table(missing: dict[str, str]) -> Table:
    """One row for each reason: a GPU may refuse a dozen questions in the same words."""
    names_of: dict[str, list[str]] = {}
    for name, why in missing.items():
        names_of.setdefault(why, []).append(name)
    table = Table("not known", "why", box=None)
    for why, names in names_of.items():
        table.add_row(escape(", ".join(names)), escape(why))
    return table


if __name__ == "__main__":
    typer.run(main)
