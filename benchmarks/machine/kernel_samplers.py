"""Samples from the files of the kernel: clocks, temperatures, and what else runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dyninfer.benchmarks.machine.cpu_state import policy_folders
from dyninfer.benchmarks.machine.host import matching, read_number, read_text
from dyninfer.benchmarks.machine.jetson import gpu_folder
from dyninfer.hardware import cpu_field

_MOST_POLICIES = 8
_KHZ_PER_MHZ = 1000
_HZ_PER_MHZ = 1e6
_MILLI = 1000
_KIB_PER_GIB = 1 << 20
_SENSOR_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_DESCENDANTS_EVERY = 4
_SHORTEST_S = 0.1  # the kernel counts in hundredths of a second


@dataclass(frozen=True)
class FileReading:
    """A reading, the files that show it, and what becomes of their numbers."""

    name: str
    files: list[Path]
    pick: Callable[[list[float]], float]
    divisor: float
    why_absent: str


class FileSampler:
    """Readings from small files; a file that refuses to be read is left out that time."""

    def __init__(self, *readings: FileReading) -> None:
        self._readings = readings
        self.missing = {r.name: r.why_absent for r in readings if not r.files}

    def sample(self) -> dict[str, float]:
        """One value for each reading that can be taken now."""
        found = {}
        for reading in self._readings:
            values = [value for file in reading.files if (value := read_number(file)) is not None]
            if values:
                found[reading.name] = reading.pick(values) / reading.divisor
        return found


def clock_sampler(root: Path) -> FileSampler:
    """``cpu_mhz``, the median clock, and ``cpu_temperature_c``, of the hottest sensor.

    Asking a core for its clock wakes it, so at most eight groups of cores are asked.
    """
    policies = policy_folders(root)
    step = -(-len(policies) // _MOST_POLICIES) or 1
    files = [policy / "scaling_cur_freq" for policy in policies[::step]]
    clocks = [file for file in files if read_number(file) is not None]
    no_clock = "no cpufreq here: a virtual machine, or not Linux"
    no_heat = "no sensor of the processor is shown here"
    return FileSampler(
        FileReading("cpu_mhz", clocks, median, _KHZ_PER_MHZ, no_clock),
        FileReading("cpu_temperature_c", temperature_files(root), max, _MILLI, no_heat),
    )


def jetson_sampler(root: Path) -> FileSampler:
    """``gpu_sm_mhz`` and ``gpu_temperature_c`` of a Jetson, which NVML does not tell.

    Not run on a Jetson yet; the files are those of L4T 35 and 36. A GPU that sleeps refuses to tell
    its temperature.
    """
    folder = gpu_folder(root)
    clocks = [] if folder is None else [folder / "cur_freq"]
    no_clock = "/sys/class/devfreq shows no GPU"
    no_heat = "no thermal zone is called after the GPU"
    return FileSampler(
        FileReading("gpu_sm_mhz", clocks, max, _HZ_PER_MHZ, no_clock),
        FileReading("gpu_temperature_c", _zones(root, "gpu")[:1], max, _MILLI, no_heat),
    )


def temperature_files(root: Path) -> list[Path]:
    """Sensors of the processor, in thousandths of a degree: by hwmon, else by thermal zone."""
    found = [
        sensor
        for chip in matching(root / "sys/class/hwmon", "hwmon*")
        if read_text(chip / "name") in _SENSOR_DRIVERS
        for sensor in matching(chip, "temp*_input")
    ]
    found = found or _zones(root, "x86_pkg_temp", "cpu")
    return [file for file in found if read_number(file) is not None]


def _zones(root: Path, *names: str) -> list[Path]:
    return [
        zone / "temp"
        for zone in matching(root / "sys/class/thermal", "thermal_zone*")
        if read_text(zone / "type").lower().startswith(names)
    ]


class LoadSampler:
    """What others do: ``other_load_cores``, ``steal_cores``, ``memory_available_gib``.

    ``other_load_cores`` is the processor time of everything but this process and the processes
    that it started, over wall-clock time. In a container it counts what other containers do.
    ``steal_cores`` is what a hypervisor gave to other machines while this one wanted to run.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.perf_counter,
        ticks_per_s: float = _TICKS_PER_S,
    ) -> None:
        self._root, self._clock, self._ticks_per_s = root, clock, ticks_per_s
        self.family = Family(root / "proc")
        self.missing: dict[str, str] = {}
        self._last = self._read()
        if self._last is None:
            self.missing["other_load_cores"] = "/proc/stat cannot be read here"
        elif not self.family.sees_children:
            self.missing["other_load_cores without own children"] = (
                "the kernel does not list children: processes started by this one count as others"
            )

    def sample(self) -> dict[str, float]:
        """Since the sample before; left out where that is less than a tenth of a second ago."""
        readings = {}
        now, last = self._read(), self._last
        if now is not None and last is not None and now[0] - last[0] >= _SHORTEST_S:
            seconds = now[0] - last[0]
            busy, stolen, own = (new - old for new, old in zip(now[1:], last[1:], strict=True))
            readings["other_load_cores"] = max(0.0, busy - own) / seconds
            readings["steal_cores"] = max(0.0, stolen) / seconds
            self._last = now
        meminfo = read_text(self._root / "proc/meminfo")
        available = cpu_field(meminfo, "MemAvailable").split()
        if available:
            readings["memory_available_gib"] = round(int(available[0]) / _KIB_PER_GIB, 2)
        return readings

    def _read(self) -> tuple[float, float, float, float] | None:
        """Wall-clock time, and seconds of all processes, stolen, and of this family."""
        line = read_text(self._root / "proc/stat").partition("\n")[0].split()
        if len(line) < 9 or line[0] != "cpu":
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, line[1:9])
        busy = (user + nice + system + irq + softirq) / self._ticks_per_s
        own = self.family.ticks() / self._ticks_per_s
        return self._clock(), busy, steal / self._ticks_per_s, own


class Family:
    """The running process and all that descend from it.

    Children that ended and were waited for are in their parent's own count, so that the sum never
    falls behind.
    """

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._calls = 0
        self._processes: list[str] = []
        tasks = proc / "self/task"
        self.sees_children = any((task / "children").exists() for task in matching(tasks, "*"))

    def ticks(self) -> int:
        """Processor time so far; descendants are looked for at every fourth call."""
        if self._calls % _DESCENDANTS_EVERY == 0:
            self._processes = self._descendants("self") if self.sees_children else []
        self._calls += 1
        return sum(self._ticks_of(process) for process in ("self", *self._processes))

    def pids(self) -> set[int]:
        """The descendants found last, without this process."""
        return {int(process) for process in self._processes}

    def _descendants(self, process: str) -> list[str]:
        found: list[str] = []
        waiting = [process]
        while waiting:
            tasks = matching(self._proc / waiting.pop() / "task", "*")
            children = [c for t in tasks for c in read_text(t / "children").split()]
            found += children
            waiting += children
        return found

    def _ticks_of(self, process: str) -> int:
        """utime, stime, cutime and cstime (proc(5), fields 14 to 17); 0 if it has just ended."""
        text = read_text(self._proc / process / "stat")
        fields = text.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) if len(fields) > 14 else 0
