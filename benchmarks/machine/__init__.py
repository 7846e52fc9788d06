"""The machine that a benchmark runs on: what it is, how it fares, what energy it uses."""

from dyninfer.benchmarks.machine.describe import Machine, describe_machine, load_average
from dyninfer.benchmarks.machine.log import MachineLog

__all__ = ["Machine", "MachineLog", "describe_machine", "load_average"]
