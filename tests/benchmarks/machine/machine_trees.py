"""File trees as Linux shows them on machines that are not at hand, from the documented layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPU = "sys/devices/system/cpu"
POWERCAP = "sys/class/powercap"
HWMON = "sys/class/hwmon"


def write_tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


def cpufreq(cores: int, **settings: object) -> dict[str, object]:
    """One policy for each core; settings of a list go by core."""
    return {
        f"{CPU}/cpufreq/policy{core}/{name}": value[core] if isinstance(value, list) else value
        for core in range(cores)
        for name, value in settings.items()
    }


def workstation() -> dict[str, object]:
    """Twelve cores of an Intel processor as most distributions leave them."""
    return {
        **cpufreq(
            12,
            scaling_governor="powersave",
            scaling_driver="intel_pstate",
            scaling_cur_freq=[800_000 + 100_000 * core for core in range(12)],
            scaling_min_freq=800_000,
            scaling_max_freq=4_800_000,
            cpuinfo_max_freq=4_800_000,
            energy_performance_preference="balance_performance",
        ),
        f"{CPU}/intel_pstate/no_turbo": 0,
        f"{CPU}/smt/active": 1,
        "sys/firmware/acpi/platform_profile": "balanced",
        f"{HWMON}/hwmon0/name": "nvme",
        f"{HWMON}/hwmon0/temp1_input": 99_000,
        f"{HWMON}/hwmon3/name": "coretemp",
        f"{HWMON}/hwmon3/temp1_label": "Package id 0",
        f"{HWMON}/hwmon3/temp1_input": 61_000,
        f"{HWMON}/hwmon3/temp2_input": 58_000,
        "sys/class/power_supply/AC/type": "Mains",
        "sys/class/power_supply/AC/online": 1,
        "sys/class/power_supply/BAT0/type": "Battery",
        "sys/class/power_supply/BAT0/status": "Full",
        "proc/cpuinfo": "processor : 0\nmodel name\t: Intel(R) Core(TM)\nflags\t\t: fpu avx2",
        "proc/meminfo": "MemTotal: 33554432 kB\nMemFree: 1 kB\nMemAvailable: 16777216 kB",
    }


def rapl() -> dict[str, object]:
    """Two packages with parts, the platform, and a second door to the first package."""
    zones = {
        "intel-rapl:0": ("package-0", 1_000_000),
        "intel-rapl:0:0": ("core", 400_000),
        "intel-rapl:0:1": ("dram", 70_000),
        "intel-rapl:1": ("package-1", 5_000_000),
        "intel-rapl:2": ("psys", 9_000_000),
        "intel-rapl-mmio:0": ("package-0", 1_000_000),
    }
    files: dict[str, object] = {f"{POWERCAP}/intel-rapl/enabled": 1}
    for zone, (name, energy) in zones.items():
        files[f"{POWERCAP}/{zone}/name"] = name
        files[f"{POWERCAP}/{zone}/energy_uj"] = energy
        files[f"{POWERCAP}/{zone}/max_energy_range_uj"] = 262_143_328_850
    return files


def ina3221(chip: str, rails: Mapping[str, tuple[float, float]]) -> dict[str, object]:
    """A monitor's channels (mV, mA), with the shunts' voltages that lie beside them."""
    files: dict[str, object] = {f"{HWMON}/{chip}/name": "ina3221"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {
            f"{HWMON}/{chip}/in{channel}_label": label,
            f"{HWMON}/{chip}/in{channel}_enable": 1,
            f"{HWMON}/{chip}/in{channel}_input": millivolts,
            f"{HWMON}/{chip}/curr{channel}_input": milliamperes,
            f"{HWMON}/{chip}/in{channel + 3}_input": 1_200,
        }
    files[f"{HWMON}/{chip}/in7_label"] = "sum of shunt voltages"
    files[f"{HWMON}/{chip}/curr4_input"] = 99_999
    return files


def orin_nano() -> dict[str, object]:
    """JetPack 6.2 (L4T 36.4.3), nothing locked."""
    return {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit Super\0",
        "proc/device-tree/serial-number": "1424124000001\0",
        "etc/nv_tegra_release": (
            "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"
        ),
        **cpufreq(
            6,
            scaling_governor="schedutil",
            scaling_driver="tegra194",
            scaling_cur_freq=729_600,
            scaling_min_freq=729_600,
            scaling_max_freq=1_728_000,
            cpuinfo_max_freq=1_728_000,
        ),
        "sys/class/devfreq/17000000.gpu/cur_freq": 306_000_000,
        "sys/class/devfreq/17000000.gpu/min_freq": 306_000_000,
        "sys/class/devfreq/17000000.gpu/max_freq": 1_020_000_000,
        "sys/class/devfreq/15340000.vic/cur_freq": 1,
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": 48_500,
        "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
        "sys/class/thermal/thermal_zone1/temp": 47_250,
        "sys/class/thermal/thermal_zone8/type": "tj-thermal",
        "sys/class/thermal/thermal_zone8/temp": 49_000,
        **ina3221(
            "hwmon1",
            {"VDD_IN": (5_000, 1_200), "VDD_CPU_GPU_CV": (5_000, 300), "VDD_SOC": (5_000, 280)},
        ),
        f"{HWMON}/hwmon3/name": "soctherm_oc",
        f"{HWMON}/hwmon3/oc1_event_cnt": 0,
        f"{HWMON}/hwmon3/oc2_event_cnt": 3,
        f"{HWMON}/hwmon3/oc3_event_cnt": 15,
    }


def xavier_nx() -> dict[str, object]:
    """JetPack 5.1.2 (L4T 35.4.1) after jetson_clocks."""
    return {
        "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
        "etc/nv_tegra_release": (
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64"
        ),
        **cpufreq(
            6,
            scaling_governor="schedutil",
            scaling_cur_freq=1_420_800,
            scaling_min_freq=1_420_800,
            scaling_max_freq=1_420_800,
        ),
        "sys/class/devfreq/17000000.gv11b/cur_freq": 1_109_250_000,
        "sys/class/devfreq/17000000.gv11b/min_freq": 1_109_250_000,
        "sys/class/devfreq/17000000.gv11b/max_freq": 1_109_250_000,
        "sys/class/thermal/thermal_zone0/type": "CPU-therm",
        "sys/class/thermal/thermal_zone0/temp": 41_000,
        "sys/class/thermal/thermal_zone1/type": "GPU-therm",
        "sys/class/thermal/thermal_zone1/temp": 40_500,
        **ina3221(
            "hwmon4",
            {"VDD_IN": (4_984, 800), "VDD_CPU_GPU_CV": (4_984, 90), "VDD_SOC": (4_984, 200)},
        ),
    }


def agx_orin_rails() -> dict[str, object]:
    """Two monitors of parts, one channel of which is not connected."""
    return {
        **ina3221(
            "hwmon2",
            {"VDD_GPU_SOC": (20_000, 100), "VDD_CPU_CV": (20_000, 50), "VIN_SYS_5V0": (5_000, 400)},
        ),
        **ina3221("hwmon3", {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5_000, 100), "NC ": (0, 0)}),
    }


def proc_of(
    busy: int, own: int, *, steal: int = 0, children: Mapping[int, int] | None = None
) -> dict[str, object]:
    """``/proc`` of a machine that was busy for so many ticks, ``own`` of them for this process."""
    numbers = " ".join(map(str, children or {}))
    return {
        "proc/stat": f"cpu  {busy} 0 0 12345 99 0 0 {steal} 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10",
        "proc/self/stat": stat_line(1, own),
        "proc/self/task/1/children": numbers,
        **{f"proc/{pid}/stat": stat_line(pid, ticks) for pid, ticks in (children or {}).items()},
        **{f"proc/{pid}/task/{pid}/children": "" for pid in (children or {})},
    }


def stat_line(pid: int, ticks: int) -> str:
    """proc(5): utime is field 14; the name may hold blanks and brackets."""
    return f"{pid} (a (b) c) S 1 1 1 0 -1 4194560 9 9 0 0 {ticks} 0 0 0 20 0 1 0 5 1 1"


def cgroup_v2(quota: str = "max 100000", throttled: int = 0) -> dict[str, object]:
    group = "sys/fs/cgroup/system.slice/work.service"
    return {
        "proc/self/cgroup": "0::/system.slice/work.service",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
        f"{group}/cpu.max": quota,
        f"{group}/memory.max": 2 << 30,
        f"{group}/cpu.stat": (
            f"usage_usec 5\nuser_usec 4\nnr_periods 10\nnr_throttled {throttled}\nthrottled_usec 9"
        ),
    }


def cgroup_v1(quota_us: int = -1) -> dict[str, object]:
    """In a container: the path is one that only the host knows."""
    return {
        "proc/self/cgroup": (
            "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/docker/0123\n0::/"
        ),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": quota_us,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100_000,
        "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
    }
