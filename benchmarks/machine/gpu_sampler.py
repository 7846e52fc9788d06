"""Samples of an NVIDIA GPU by NVML. Not run on a GPU yet: see :mod:`.nvml`."""

from __future__ import annotations

import os
from collections.abc import Callable, Set

from dyninfer.benchmarks.machine.nvml import Handle, NvmlModule, reason_of

# nvmlClocksEventReasons and, below 0x200 their older name, nvmlClocksThrottleReasons of nvml.h.
# Left out: idle (0x1), and application (0x2) and display clocks (0x100), which somebody chose.
THROTTLE_REASONS = {
    0x4: "GPU: power limit (software)",
    0x8: "GPU: slowdown by the hardware",
    0x10: "GPU: held to the clock of another GPU (sync boost)",
    0x20: "GPU: temperature (software)",
    0x40: "GPU: temperature (hardware)",
    0x80: "GPU: power brake from outside",
    0x200: "GPU: board limit",
    0x400: "GPU: voltage reliability",
}
_MILLI = 1000


def throttle_words(bits: int) -> tuple[str, ...]:
    """The reasons in a mask that slow a GPU down although nobody chose it."""
    return tuple(words for bit, words in THROTTLE_REASONS.items() if bits & bit)


class GpuSampler:
    """Clocks, temperature, power, and what other processes do on one GPU.

    A query that the GPU refuses once is in :attr:`missing` and not asked again. ``family`` gives
    process numbers that are not others', without this process.
    """

    def __init__(
        self,
        nvml: NvmlModule,
        gpu: Handle,
        family: Callable[[], Set[int]] = frozenset,
    ) -> None:
        self._nvml, self._gpu, self._family = nvml, gpu, family
        self.missing: dict[str, str] = {}
        self._throttled: dict[str, None] = {}
        self._seen_us = 0
        names = (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",  # until driver 535
        )
        self._reasons = [getattr(nvml, name) for name in names if hasattr(nvml, name)]
        sm, memory, core = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM, nvml.NVML_TEMPERATURE_GPU
        self._queries: dict[str, Callable[[], float | None]] = {
            "gpu_sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, sm),
            "gpu_memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, memory),
            "gpu_temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, core),
            "gpu_watts": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / _MILLI,
            "gpu_other_share": self._others_share,
        }

    @property
    def throttled(self) -> tuple[str, ...]:
        """Reasons seen so far."""
        return tuple(self._throttled)

    def sample(self) -> dict[str, float]:
        """One reading of each kind that this GPU has."""
        readings = {}
        for name, ask in list(self._queries.items()):
            try:
                value = ask()
            except self._nvml.NVMLError as error:
                self.missing[name] = reason_of(error)
                del self._queries[name]
                continue
            if value is not None:
                readings[name] = float(value)
        self._note_throttling()
        return readings

    def _note_throttling(self) -> None:
        while self._reasons:
            try:
                bits = self._reasons[0](self._gpu)
            except self._nvml.NVMLError as error:
                del self._reasons[0]
                if not self._reasons:
                    self.missing["gpu throttling"] = reason_of(error)
                continue
            self._throttled |= dict.fromkeys(throttle_words(bits))
            return

    def _others_share(self) -> float | None:
        """Largest share of time with a kernel of another process, of the samples since last time.

        In a container the driver shows process numbers of the host, and this process cannot be
        told from others; so nothing is said before it has been seen among them.
        """
        own = {os.getpid(), *self._family()}
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._gpu)
        if not any(process.pid in own for process in running):
            self.missing["gpu_other_share"] = (
                "this process is not among those that the driver lists: it has not used the GPU, "
                "or a container hides its number"
            )
            return None
        self.missing.pop("gpu_other_share", None)
        try:
            samples = self._nvml.nvmlDeviceGetProcessUtilization(self._gpu, self._seen_us)
        except self._nvml.NVMLError as error:
            if "Not Found" in str(error):  # no sample since then: nothing ran
                return 0.0
            raise
        self._seen_us = max((s.timeStamp for s in samples), default=self._seen_us)
        return max((s.smUtil for s in samples if s.pid not in own), default=0) / 100
