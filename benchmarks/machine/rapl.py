"""Energy of x86 processors by RAPL, the counters behind ``/sys/class/powercap``.

Kernel documentation, ``power/powercap/powercap.rst``: ``energy_uj`` counts microjoules and starts
anew after ``max_energy_range_uj``. Not run here: the machine at hand shows no counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dyninfer.benchmarks.machine.files import matching, read_number, read_text, why_unreadable
from dyninfer.benchmarks.machine.meters import CounterMeter
from dyninfer.errors import DyninferError

POWERCAP = Path("sys/class/powercap")
_MICRO = 1e6
# not intel-rapl-mmio:*, a second door to the same packages; what is not called package is a part
_ZONES = "intel-rapl:*"


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
