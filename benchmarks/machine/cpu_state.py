"""How a processor is set (governor, clocks, boost, threads per core), and what held it back.

From the files of Linux's cpufreq (kernel documentation, ``admin-guide/pm/cpufreq.rst``): one folder
``policy*`` for every group of cores that change their clock together. Whether the processor was
held back is told afterwards by counters of the kernel, which cost nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from dyninfer.benchmarks.machine.host import group_folders, matching, read_number, read_text

CPU_FOLDER = Path("sys/devices/system/cpu")
_BOOST = CPU_FOLDER / "cpufreq/boost"
_NO_TURBO = CPU_FOLDER / "intel_pstate/no_turbo"
_PROFILE = Path("sys/firmware/acpi/platform_profile")
_KHZ_PER_MHZ = 1000
QUOTA = "CPU: quota of the control group"
TEMPERATURE = "CPU: temperature"
_SOCTHERM = "soctherm_oc"
# Jetson Orin developer guide, over-current event status: what oc1, oc2 and oc3 count
_OVER_CURRENT = {
    "oc1": "module: under-voltage",
    "oc2": "module: average over-current",
    "oc3": "module: instantaneous over-current",
}


@dataclass(frozen=True)
class CpuState:
    """Settings of the processor; None where they cannot be told.

    Attributes:
        governor: what chooses the clocks; several, with commas, where cores differ.
        driver: of cpufreq.
        current_mhz: median over the cores when it was read.
        min_mhz, max_mhz: clocks that the governor may choose, over all cores.
        hardware_max_mhz: highest clock that the processor has.
        locked: whether the governor has one clock to choose from, on every core.
        boost: whether clocks above the nominal one are allowed.
        smt: whether two or more threads share a core.
        energy_preference: what the processor itself aims for (``performance``, ``power``, ...).
        platform_profile: what the firmware aims for.
    """

    governor: str | None = None
    driver: str | None = None
    current_mhz: float | None = None
    min_mhz: float | None = None
    max_mhz: float | None = None
    hardware_max_mhz: float | None = None
    locked: bool | None = None
    boost: bool | None = None
    smt: bool | None = None
    energy_preference: str | None = None
    platform_profile: str | None = None


def read_cpu_state(root: Path = Path("/")) -> tuple[CpuState, dict[str, str]]:
    """The settings, and for what cannot be told the reason."""
    policies = policy_folders(root)
    low, high = _all_mhz(policies, "scaling_min_freq"), _all_mhz(policies, "scaling_max_freq")
    now = _all_mhz(policies, "scaling_cur_freq")
    state = CpuState(
        governor=_words(policies, "scaling_governor"),
        driver=_words(policies, "scaling_driver"),
        current_mhz=median(now) if now else None,
        min_mhz=min(low, default=None),
        max_mhz=max(high, default=None),
        hardware_max_mhz=max(_all_mhz(policies, "cpuinfo_max_freq"), default=None),
        locked=low == high if low and len(low) == len(high) == len(policies) else None,
        boost=_boost(root),
        smt=_flag(read_number(root / CPU_FOLDER / "smt/active")),
        energy_preference=_words(policies, "energy_performance_preference"),
        platform_profile=read_text(root / _PROFILE) or None,
    )
    missing = {}
    if not policies:
        missing["cpu clocks"] = (
            f"/{CPU_FOLDER / 'cpufreq'} holds no policy: a virtual machine, or a kernel without "
            "cpufreq; whoever runs the host can tell"
        )
    return state, missing


def policy_folders(root: Path) -> list[Path]:
    """One folder for every group of cores with a clock of their own."""
    return matching(root / CPU_FOLDER / "cpufreq", "policy*")


def _boost(root: Path) -> bool | None:
    no_turbo = read_number(root / _NO_TURBO)
    if no_turbo is not None:
        return no_turbo == 0
    return _flag(read_number(root / _BOOST))


def _flag(number: float | None) -> bool | None:
    return None if number is None else number != 0


def _all_mhz(policies: Iterable[Path], name: str) -> list[float]:
    values = (read_number(policy / name) for policy in policies)
    return [value / _KHZ_PER_MHZ for value in values if value is not None]


def _words(policies: Iterable[Path], name: str) -> str | None:
    found = {text for policy in policies if (text := read_text(policy / name))}
    return ", ".join(sorted(found)) or None


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
