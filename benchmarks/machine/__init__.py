"""The machine that a benchmark runs on: what it is, how it fares, what energy it uses."""

from dyninfer.benchmarks.machine.caveats import warnings_of
from dyninfer.benchmarks.machine.describe import Machine, describe_machine, load_average
from dyninfer.benchmarks.machine.energy import (
    EnergyMeter,
    find_energy_meter,
    joules_by_exit,
    joules_per_image,
    measure_idle_watts,
)
from dyninfer.benchmarks.machine.log import MachineLog, Range
from dyninfer.benchmarks.machine.recorder import MachineRecorder
from dyninfer.benchmarks.machine.table import machine_rows

__all__ = [
    "EnergyMeter",
    "Machine",
    "MachineLog",
    "MachineRecorder",
    "Range",
    "describe_machine",
    "find_energy_meter",
    "joules_by_exit",
    "joules_per_image",
    "load_average",
    "machine_rows",
    "measure_idle_watts",
    "warnings_of",
]
