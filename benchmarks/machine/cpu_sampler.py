"""Samples of the processor: its clocks, its temperature, and what else runs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from dyninfer.benchmarks.machine.cpu_state import policy_folders
from dyninfer.benchmarks.machine.files import matching, read_number, read_text

_MOST_POLICIES = 8
_KHZ_PER_MHZ = 1000
_MILLI = 1000
_KIB_PER_GIB = 1 << 20
_SENSOR_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
_ZONES = ("x86_pkg_temp", "cpu")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_DESCENDANTS_EVERY = 4
_SHORTEST_S = 0.1  # the kernel counts in hundredths of a second


class ClockSampler:
    """``cpu_mhz`` and ``cpu_temperature_c``.

    Asking a core for its clock wakes it, so at most eight groups of cores are asked.
    """

    def __init__(self, root: Path) -> None:
        policies = policy_folders(root)
        step = -(-len(policies) // _MOST_POLICIES) or 1
        files = [policy / "scaling_cur_freq" for policy in policies[::step]]
        self._clocks = [file for file in files if read_number(file) is not None]
        self._sensors = temperature_files(root)
        self.missing: dict[str, str] = {}
        if not self._clocks:
            self.missing["cpu_mhz"] = "no cpufreq here: a virtual machine, or not Linux"
        if not self._sensors:
            self.missing["cpu_temperature_c"] = "no sensor of the processor is shown here"

    def sample(self) -> dict[str, float]:
        """The median clock, and the temperature of the hottest sensor."""
        readings = {}
        clocks = [value for file in self._clocks if (value := read_number(file)) is not None]
        if clocks:
            readings["cpu_mhz"] = median(clocks) / _KHZ_PER_MHZ
        heat = [value for file in self._sensors if (value := read_number(file)) is not None]
        if heat:
            readings["cpu_temperature_c"] = max(heat) / _MILLI
        return readings


def temperature_files(root: Path) -> list[Path]:
    """Sensors of the processor, in thousandths of a degree: by hwmon, else by thermal zone."""
    found = [
        sensor
        for chip in matching(root / "sys/class/hwmon", "hwmon*")
        if read_text(chip / "name") in _SENSOR_DRIVERS
        for sensor in matching(chip, "temp*_input")
    ] or [
        zone / "temp"
        for zone in matching(root / "sys/class/thermal", "thermal_zone*")
        if (read_text(zone / "type") or "").lower().startswith(_ZONES)
    ]
    return [file for file in found if read_number(file) is not None]


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
        available = meminfo_gib(read_text(self._root / "proc/meminfo") or "", "MemAvailable")
        if available is not None:
            readings["memory_available_gib"] = available
        return readings

    def _read(self) -> tuple[float, float, float, float] | None:
        """Wall-clock time, and seconds of all processes, stolen, and of this family."""
        line = (read_text(self._root / "proc/stat") or "").partition("\n")[0].split()
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
            children = [c for t in tasks for c in (read_text(t / "children") or "").split()]
            found += children
            waiting += children
        return found

    def _ticks_of(self, process: str) -> int:
        """utime, stime, cutime and cstime (proc(5), fields 14 to 17); 0 if it has just ended."""
        text = read_text(self._proc / process / "stat") or ""
        fields = text.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) if len(fields) > 14 else 0


def meminfo_gib(text: str, name: str) -> float | None:
    """An entry of ``/proc/meminfo``."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return round(int(value.split()[0]) / _KIB_PER_GIB, 2)
    return None
