"""Power of a Jetson module by the monitors on its supply rails. Not run on a Jetson yet.

Linux's hwmon drivers ``ina3221`` (kernel documentation, ``hwmon/ina3221.rst``; L4T 35 and later)
and ``ina238`` (Thor): ``in1_input`` in mV, ``curr1_input`` in mA, ``power1_input`` in uW. On
earlier releases, jtop reads the same monitors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dyninfer.benchmarks.machine.files import matching, read_number, read_text, why_unreadable
from dyninfer.benchmarks.machine.jtop_api import PATIENCE_S, Jtop, load_jtop, within
from dyninfer.benchmarks.machine.meters import PowerIntegrator

TOTAL_RAILS = ("VIN", "VDD_IN", "POM_5V_IN")
"""Each is everything that the module (VIN: the whole kit) draws; the others are parts of it."""
_CHANNELS = (1, 2, 3)  # 4 to 6 are the shunts' own voltages, 7 their sum
_MICRO = 1e6
_MILLI = 1000


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
