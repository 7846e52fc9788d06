"""Energy of an NVIDIA GPU's board by NVML. Not run on a GPU yet: see :mod:`.nvml`."""

from __future__ import annotations

from dyninfer.benchmarks.machine.integrator import PowerIntegrator
from dyninfer.benchmarks.machine.nvml import Handle, LoadNvml, NvmlModule, find_handle, reason_of
from dyninfer.errors import DyninferError

_MILLI = 1000


class GpuEnergyMeter:
    """The driver's own counter of millijoules since it was loaded (Volta and later)."""

    def __init__(self, nvml: NvmlModule, gpu: Handle) -> None:
        self.source = "NVML, energy counter of the GPU's board (without the processor)"
        self._nvml, self._gpu, self._open = nvml, gpu, True
        self._start = nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)

    def joules(self) -> float:
        """Energy since the meter was opened.

        Raises:
            DyninferError: the driver does not answer any more.
        """
        try:
            now = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)
        except self._nvml.NVMLError as error:
            raise DyninferError(
                f"NVML gives no energy any more ({reason_of(error)}), expected millijoules; "
                "measure without energy"
            ) from None
        return float(now - self._start) / _MILLI

    def close(self) -> None:
        """Leave NVML."""
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()


def open_gpu_energy(
    load: LoadNvml, device: str
) -> tuple[GpuEnergyMeter | PowerIntegrator | None, str]:
    """A meter over the counter, or over the power where there is no counter; or why neither is."""
    nvml, why = load()
    if nvml is None:
        return None, f"NVML: {why}"
    gpu, why = find_handle(nvml, device)
    if gpu is None:
        nvml.nvmlShutdown()
        return None, f"NVML: {why}"
    try:
        return GpuEnergyMeter(nvml, gpu), ""
    except nvml.NVMLError:
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
