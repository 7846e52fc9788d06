"""Energy of an NVIDIA GPU's board by NVML. Not run on a GPU yet: see :mod:`.nvml`."""

from __future__ import annotations

from dyninfer.benchmarks.machine.meters import CounterMeter, PowerIntegrator
from dyninfer.benchmarks.machine.nvml import LoadNvml, find_handle, reason_of
from dyninfer.errors import DyninferError

_MILLI = 1000


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
