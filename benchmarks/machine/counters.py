"""Counters of the kernel that tell afterwards whether the processor was held back.

They are read once at the start and once at the end, so they cost nothing in between.
"""

from __future__ import annotations

from pathlib import Path

from dyninfer.benchmarks.machine.cpu_state import CPU_FOLDER
from dyninfer.benchmarks.machine.files import matching, read_number, read_text
from dyninfer.benchmarks.machine.host import group_folders

QUOTA = "CPU: quota of the control group"
TEMPERATURE = "CPU: temperature"
_SOCTHERM = "soctherm_oc"
# Jetson Orin developer guide, over-current event status: what oc1, oc2 and oc3 count
_OVER_CURRENT = {
    "oc1": "module: under-voltage",
    "oc2": "module: average over-current",
    "oc3": "module: instantaneous over-current",
}


def read_counters(root: Path) -> dict[str, float]:
    """Reason -> how often it held the processor back since the machine started.

    The quota's counter is ``nr_throttled`` of a control group (both versions), the processor's own
    are x86's ``thermal_throttle``, a Jetson Orin's are those of its over-current protection.
    """
    found: dict[str, float] = {}
    for group in group_folders(root):
        for line in read_text(group / "cpu.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "nr_throttled":
                found[QUOTA] = found.get(QUOTA, 0) + int(value)
    for core in matching(root / CPU_FOLDER, "cpu[0-9]*"):
        for name in ("core_throttle_count", "package_throttle_count"):
            count = read_number(core / "thermal_throttle" / name)
            if count is not None:
                found[TEMPERATURE] = found.get(TEMPERATURE, 0) + count
    for chip in matching(root / "sys/class/hwmon", "hwmon*"):
        if read_text(chip / "name") == _SOCTHERM:
            for event, reason in _OVER_CURRENT.items():
                count = read_number(chip / f"{event}_event_cnt")
                if count is not None:
                    found[reason] = count
    return found


def increased(before: dict[str, float], after: dict[str, float]) -> tuple[str, ...]:
    """The reasons whose counters rose."""
    return tuple(name for name, count in after.items() if count > before.get(name, count))
