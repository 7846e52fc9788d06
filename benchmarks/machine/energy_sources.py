"""Where energy can be read: RAPL, NVML, a Jetson's supply rails, jtop.

RAPL are the counters of x86 processors behind ``/sys/class/powercap`` (kernel documentation,
``power/powercap/powercap.rst``): ``energy_uj`` counts microjoules and starts anew after
``max_energy_range_uj``. A Jetson has monitors on its supply rails, read by Linux's hwmon drivers
``ina3221`` (kernel documentation, ``hwmon/ina3221.rst``; L4T 35 and later) and ``ina238`` (Thor):
``in1_input`` in mV, ``curr1_input`` in mA, ``power1_input`` in uW; on earlier releases, jtop reads
the same monitors. Nothing here was run on a Jetson, a GPU or a processor that shows its counters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dyninfer.benchmarks.machine.energy import CounterMeter, EnergyMeter, PowerIntegrator
from dyninfer.benchmarks.machine.host import matching, read_number, read_text, why_unreadable
from dyninfer.benchmarks.machine.jetson import (
    PATIENCE_S,
    Jtop,
    load_jtop,
    read_jetson_model,
    within,
)
from dyninfer.benchmarks.machine.nvml import LoadNvml, find_handle, load_nvml, reason_of
from dyninfer.errors import DyninferError

POWERCAP = Path("sys/class/powercap")
# not intel-rapl-mmio:*, a second door to the same packages; what is not called package is a part
_ZONES = "intel-rapl:*"
TOTAL_RAILS = ("VIN", "VDD_IN", "POM_5V_IN")
"""Each is everything that the module (VIN: the whole kit) draws; the others are parts of it."""
_CHANNELS = (1, 2, 3)  # 4 to 6 are the shunts' own voltages, 7 their sum
_MICRO = 1e6
_MILLI = 1000


def find_energy_meter(
    device: str = "cpu",
    *,
    root: Path = Path("/"),
    load_nvml: LoadNvml = load_nvml,
    open_jtop: Callable[[], Jtop] | None = None,
) -> tuple[EnergyMeter | None, str]:
    """The meter for what runs on a device and its name, or None and why there is none.

    A Jetson's rails tell of the whole module, on either device. Elsewhere a GPU is measured by
    NVML and a processor by RAPL; neither is taken for the other.
    """
    meter: EnergyMeter | None
    if read_jetson_model(root) is not None:
        meter, why = open_rails(root)
        if meter is None:
            meter, of_jtop = open_jtop_power(open_jtop)
            why = f"{why}; {of_jtop}"
    elif device.startswith("cuda"):
        meter, why = open_gpu_energy(load_nvml, device)
    else:
        meter, why = open_rapl(root)
    return meter, why if meter is None else meter.source


@dataclass
class _Zone:
    name: str
    file: Path
    range_uj: float
    last_uj: float
    counted_uj: float = 0.0

    def count(self) -> float:
        """Microjoules since it was opened; a smaller reading than before is a wrap-around."""
        now = read_number(self.file)
        if now is None:
            raise DyninferError(
                f"{self.file} cannot be read any more ({why_unreadable(self.file)}), expected "
                "microjoules; measure without energy"
            )
        step = now - self.last_uj
        self.counted_uj += step if step >= 0 else step + self.range_uj
        self.last_uj = now
        return self.counted_uj


def open_rapl(root: Path = Path("/")) -> tuple[CounterMeter | None, str]:
    """A meter over the sum of all packages' counters, or None and why there is none.

    Two readings must not lie a whole range apart: about 40 minutes at 100 W (262 kJ).
    """
    zones = []
    for folder in matching(root / POWERCAP, _ZONES):
        name = read_text(folder / "name")
        if not name.startswith("package"):
            continue
        file = folder / "energy_uj"
        now, span = read_number(file), read_number(folder / "max_energy_range_uj")
        if now is None or span is None:
            shown = f"/{POWERCAP / folder.name / 'energy_uj'}"
            return None, (
                f"RAPL: {shown} cannot be read ({why_unreadable(file) or 'no number'}): sudo "
                f"chmod a+r /{POWERCAP}/intel-rapl:*/energy_uj, until the next start"
            )
        zones.append(_Zone(name, file, span, now))
    if not zones:
        return None, f"RAPL: /{POWERCAP} shows no processor package (a virtual machine, or not x86)"
    source = f"RAPL {', '.join(zone.name for zone in zones)} (without main memory)"
    return CounterMeter(source, lambda: sum(zone.count() for zone in zones) / _MICRO), ""


def open_gpu_energy(
    load: LoadNvml, device: str
) -> tuple[CounterMeter | PowerIntegrator | None, str]:
    """A meter over the counter, or over the power where there is no counter; or why neither is."""
    nvml, why = load()
    if nvml is None:
        return None, f"NVML: {why}"
    gpu, why = find_handle(nvml, device)
    if gpu is None:
        nvml.nvmlShutdown()
        return None, f"NVML: {why}"

    def joules() -> float:  # since the driver was loaded; Volta and later
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / _MILLI
        except nvml.NVMLError as error:
            raise DyninferError(
                f"NVML gives no energy any more ({reason_of(error)}), expected millijoules; "
                "measure without energy"
            ) from None

    what = "NVML, energy counter of the GPU's board (without the processor)"
    try:
        return CounterMeter(what, joules, nvml.nvmlShutdown), ""
    except DyninferError:
        pass  # before Volta; the power is asked instead, and its refusal is told
    try:
        nvml.nvmlDeviceGetPowerUsage(gpu)
    except nvml.NVMLError as error:
        nvml.nvmlShutdown()
        return None, f"NVML: neither energy nor power of {device} ({reason_of(error)})"

    def watts() -> float | None:
        try:
            return float(nvml.nvmlDeviceGetPowerUsage(gpu)) / _MILLI
        except nvml.NVMLError:
            return None

    what = "NVML, power of the GPU's board (without the processor)"
    return PowerIntegrator(what, watts, on_close=nvml.nvmlShutdown), ""


@dataclass(frozen=True)
class Rail:
    """One supply line; the product of what its files show is its power in microwatts."""

    label: str
    files: tuple[Path, ...]

    def watts(self) -> float | None:
        """Power now; None where the monitor refuses."""
        shown = [number for file in self.files if (number := read_number(file)) is not None]
        return prod(shown) / _MICRO if len(shown) == len(self.files) else None


def find_rails(root: Path = Path("/")) -> tuple[Rail, ...]:
    """Every rail that is measured, in the order of the monitors."""
    rails: list[Rail] = []
    for chip in matching(root / "sys/class/hwmon", "hwmon*"):
        name = read_text(chip / "name").lower()
        if name.startswith("ina3221"):
            rails += _channels_of(chip)
        elif name.startswith("ina238") and (chip / "power1_input").exists():
            rails.append(Rail("VIN", (chip / "power1_input",)))
    return tuple(rails)


def _channels_of(chip: Path) -> list[Rail]:
    return [
        Rail(label, (chip / f"in{channel}_input", chip / f"curr{channel}_input"))
        for channel in _CHANNELS
        if (label := read_text(chip / f"in{channel}_label"))
        and label != "NC"  # not connected
        and read_number(chip / f"in{channel}_enable") != 0
        and (chip / f"curr{channel}_input").exists()
    ]


def rails_of_total(rails: tuple[Rail, ...]) -> tuple[Rail, ...]:
    """The rails whose sum is the total: the one that is it, or all of them.

    Jetson Nano, TX2, Xavier NX, Orin NX and Orin Nano measure their total; AGX Xavier and AGX Orin
    only parts, which do not overlap.
    """
    for name in TOTAL_RAILS:
        total = tuple(rail for rail in rails if rail.label == name)
        if total:
            return total[:1]
    return rails


def open_rails(root: Path = Path("/")) -> tuple[PowerIntegrator | None, str]:
    """A meter over the rails' files, or None and why there is none."""
    rails = rails_of_total(find_rails(root))
    if not rails:
        return None, "no ina3221 or ina238 monitor is shown below /sys/class/hwmon"
    for rail in rails:
        if rail.watts() is None:
            why = why_unreadable(rail.files[-1]) or "no number"
            return None, f"rail {rail.label} cannot be read ({why})"

    def total() -> float | None:
        watts = [rail.watts() for rail in rails]
        return None if None in watts else sum(w for w in watts if w is not None)

    names = ", ".join(rail.label for rail in rails)
    what = f"Jetson rail {names}" if len(rails) == 1 else f"Jetson rails {names}, added up"
    return PowerIntegrator(what, total), ""


def open_jtop_power(
    open_jtop: Callable[[], Jtop] | None = None,
) -> tuple[PowerIntegrator | None, str]:
    """A meter over what jtop's service shows as total, or None and why there is none."""
    connect, version = (open_jtop, "") if open_jtop is not None else load_jtop()
    if connect is None:
        return None, version
    jtop, why = within(PATIENCE_S, lambda: connect().__enter__())
    if jtop is None:
        return None, f"jtop: {why}"

    def total() -> float | None:
        try:  # a broken connection would go on showing its last reading
            holds = jtop.ok(spin=True)
        except Exception:  # jtop raises whatever its thread met; silence becomes an error later
            holds = False
        return float(jtop.power["tot"]["power"]) / _MILLI if holds else None

    name = jtop.power["tot"].get("name", "sum of all rails")
    # the service measures once or twice a second
    return PowerIntegrator(
        f"jtop, {name}", total, interval_s=0.5, on_close=lambda: jtop.close()
    ), ""
