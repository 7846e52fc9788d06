"""Samples of a Jetson's GPU, which NVML does not tell: ``gpu_sm_mhz``, ``gpu_temperature_c``.

Not run on a Jetson yet; the files are those of L4T 35 and 36.
"""

from __future__ import annotations

from pathlib import Path

from dyninfer.benchmarks.machine.files import matching, read_number, read_text
from dyninfer.benchmarks.machine.jetson import gpu_folder

_HZ_PER_MHZ = 1e6
_MILLI = 1000


class JetsonSampler:
    """Reads the GPU's clock from devfreq and its temperature from a thermal zone."""

    def __init__(self, root: Path) -> None:
        folder = gpu_folder(root)
        self._clock = None if folder is None else folder / "cur_freq"
        zones = matching(root / "sys/class/thermal", "thermal_zone*")
        self._heat = next(
            (z / "temp" for z in zones if (read_text(z / "type") or "").lower().startswith("gpu")),
            None,
        )
        self.missing: dict[str, str] = {}
        if self._clock is None:
            self.missing["gpu_sm_mhz"] = "/sys/class/devfreq shows no GPU"
        if self._heat is None:
            self.missing["gpu_temperature_c"] = "no thermal zone is called after the GPU"

    def sample(self) -> dict[str, float]:
        """A GPU that sleeps refuses to tell its temperature; the reading is left out then."""
        readings = {}
        clock = None if self._clock is None else read_number(self._clock)
        if clock is not None:
            readings["gpu_sm_mhz"] = clock / _HZ_PER_MHZ
        heat = None if self._heat is None else read_number(self._heat)
        if heat is not None:
            readings["gpu_temperature_c"] = heat / _MILLI
        return readings
