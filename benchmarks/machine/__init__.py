"""The machine that a benchmark runs on: what it is, how it fares, what energy it uses."""

from dyninfer.benchmarks.machine.describe import Machine, describe_machine, load_average
from dyninfer.benchmarks.machine.energy import EnergyMeter, measure_idle_watts
from dyninfer.benchmarks.machine.energy_sources import find_energy_meter
from dyninfer.benchmarks.machine.recorder import MachineLog, MachineRecorder, Range
from dyninfer.benchmarks.machine.words import disturbances_of, machine_rows, warnings_of

__all__ = [
    "EnergyMeter",
    "Machine",
    "MachineLog",
    "MachineRecorder",
    "Range",
    "describe_machine",
    "disturbances_of",
    "find_energy_meter",
    "load_average",
    "machine_rows",
    "measure_idle_watts",
    "warnings_of",
]
