"""NVIDIA's management library, by the Python package ``nvidia-ml-py`` (extra ``report``).

Nothing here was run on a GPU. The names and parameters below are compared with the installed
package by a test, and what follows from them is tested against a stand-in.
"""
# ruff: noqa: D102, N802, N803 - NVML's own names

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

Answer = TypeVar("Answer")
Handle = Any
"""An opaque pointer to a device."""


class NvmlModule(Protocol):
    """What is used of the module ``pynvml``; clocks in MHz, power in mW, energy in mJ."""

    NVMLError: type[Exception]
    NVML_CLOCK_SM: int
    NVML_CLOCK_MEM: int
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle: ...
    def nvmlDeviceGetName(self, handle: Handle) -> str | bytes: ...
    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> Sequence[int]: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetPowerManagementLimit(self, handle: Handle) -> int: ...
    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Handle) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> int: ...
    def nvmlDeviceGetPersistenceMode(self, handle: Handle) -> int: ...
    def nvmlDeviceGetComputeMode(self, handle: Handle) -> int: ...
    def nvmlDeviceGetClockInfo(self, handle: Handle, type: int) -> int: ...
    def nvmlDeviceGetMaxClockInfo(self, handle: Handle, type: int) -> int: ...
    def nvmlDeviceGetApplicationsClock(self, handle: Handle, type: int) -> int: ...
    def nvmlDeviceGetDefaultApplicationsClock(self, handle: Handle, type: int) -> int: ...
    def nvmlDeviceGetEccMode(self, handle: Handle) -> Sequence[int]: ...
    def nvmlDeviceGetMigMode(self, device: Handle) -> Sequence[int]: ...
    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: Handle) -> int: ...
    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: Handle) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> int: ...
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Handle) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> Sequence[Any]: ...
    def nvmlDeviceGetProcessUtilization(self, handle: Handle, timeStamp: int) -> Sequence[Any]: ...


def load_nvml() -> tuple[NvmlModule | None, str]:
    """The module, initialised, or None and why there is none.

    Each call that gives a module wants one :meth:`NvmlModule.nvmlShutdown`; NVML counts them.
    """
    try:
        module = cast(NvmlModule, importlib.import_module("pynvml"))
    except ImportError:
        return None, 'nvidia-ml-py is not installed: pip install "dyninfer[report]"'
    return start_nvml(module)


def start_nvml(module: NvmlModule) -> tuple[NvmlModule | None, str]:
    """Initialise a module; None and the reason where there is no driver."""
    try:
        module.nvmlInit()
    except module.NVMLError as error:
        return None, f"no NVIDIA driver answers: {reason_of(error)}"
    return module, ""


def reason_of(error: Exception) -> str:
    """NVML's own words, such as ``Not Supported``, with a hint where there is something to do."""
    text = str(error)
    if "Permission" in text:
        return f"{text}: ask the administrator, or run as root"
    return text or type(error).__name__


def as_text(value: str | bytes) -> str:
    """Older packages give bytes."""
    return value.decode() if isinstance(value, bytes) else value


class Questions:
    """Asks NVML one thing after the other and keeps the reasons for what it does not answer."""

    def __init__(self, nvml: NvmlModule, about: str) -> None:
        self._nvml = nvml
        self._about = about
        self.missing: dict[str, str] = {}

    def ask(self, what: str, query: Callable[[], Answer]) -> Answer | None:
        """The answer, or None with a line in :attr:`missing`."""
        try:
            return query()
        except self._nvml.NVMLError as error:
            self.missing[f"{self._about} {what}"] = reason_of(error)
            return None


def find_handle(
    nvml: NvmlModule, device: str, environment: Mapping[str, str] = os.environ
) -> tuple[Handle | None, str]:
    """NVML's handle of a CUDA device such as ``cuda:0``, or None and why it cannot be told.

    NVML counts by bus and knows nothing of ``CUDA_VISIBLE_DEVICES``; CUDA counts the fastest
    first unless ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID`` (CUDA programming guide, environment
    variables).
    """
    index = int(device.partition(":")[2] or 0)
    try:
        count = nvml.nvmlDeviceGetCount()
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
        names = [name.strip() for name in visible.split(",")] if visible else []
        if names and index < len(names) and names[index].startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByUUID(names[index]), ""
        if count == 1 and (not names or names == ["0"]):
            return (nvml.nvmlDeviceGetHandleByIndex(0), "") if index == 0 else _no_such(device, 1)
        if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            return None, (
                f"which of {count} GPUs {device} is cannot be told: set "
                "CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        picked = names[index] if index < len(names) else str(index) if not names else ""
        if not picked.isdigit() or int(picked) >= count:
            return _no_such(device, count)
        return nvml.nvmlDeviceGetHandleByIndex(int(picked)), ""
    except nvml.NVMLError as error:
        return None, f"{device}: {reason_of(error)}"


def _no_such(device: str, count: int) -> tuple[None, str]:
    return None, f"{device} is not among the {count} GPUs that NVML and CUDA_VISIBLE_DEVICES show"
