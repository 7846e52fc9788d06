"""Stands in for ``pynvml``: a driver with made-up GPUs; names are compared with the real one."""
# ruff: noqa: N802, N803 - NVML's own names

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED, NOT_FOUND, LIBRARY_NOT_FOUND = (
    "Not Supported",
    "Not Found",
    "NVML Shared Library Not Found",
)


class FakeNvmlError(Exception):
    pass


@dataclass
class FakeGpu:
    name: str = "Tesla V100-SXM2-16GB"
    uuid: str = "GPU-0"
    refuses: set[str] = field(default_factory=set)
    sm_mhz: int = 1380
    watts: float = 250.0
    joules: float = 1000.0
    reasons: int = 0
    processes: list[int] = field(default_factory=list)
    utilisation: dict[int, int] = field(default_factory=dict)
    persistence: int = 1
    limit_w: float = 300.0
    mig: int = 0
    pcie_width: int = 16


class FakeNvml:
    NVMLError: type[Exception] = FakeNvmlError
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *gpus: FakeGpu, broken: str = "") -> None:
        self.gpus, self.broken, self.users = gpus, broken, 0

    def load(self) -> tuple[Any, str]:
        from dyninfer.benchmarks.machine.nvml import start_nvml

        return start_nvml(self)

    def _check(self, handle: FakeGpu, name: str) -> FakeGpu:
        if not self.users:
            raise FakeNvmlError("Uninitialized")
        if name in handle.refuses:
            raise FakeNvmlError(NOT_SUPPORTED)
        return handle

    def nvmlInit(self) -> None:
        if self.broken:
            raise FakeNvmlError(self.broken)
        self.users += 1

    def nvmlShutdown(self) -> None:
        assert self.users, "shut down once too often"
        self.users -= 1

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        return b"560.35.03"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12060

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise FakeNvmlError(NOT_FOUND)

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str | bytes:
        return self._check(handle, "name").name

    def nvmlDeviceGetCudaComputeCapability(self, handle: FakeGpu) -> Sequence[int]:
        self._check(handle, "capability")
        return (7, 0)

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> Any:
        self._check(handle, "memory")
        return SimpleNamespace(total=16 << 30, free=15 << 30, used=1 << 30)

    def nvmlDeviceGetPowerManagementLimit(self, handle: FakeGpu) -> int:
        return int(self._check(handle, "limit").limit_w * 1000)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: FakeGpu) -> int:
        self._check(handle, "limit")
        return 300_000

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        return int(self._check(handle, "power").watts * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        return int(self._check(handle, "energy").joules * 1000)

    def nvmlDeviceGetPersistenceMode(self, handle: FakeGpu) -> int:
        return self._check(handle, "persistence").persistence

    def nvmlDeviceGetComputeMode(self, handle: FakeGpu) -> int:
        self._check(handle, "compute mode")
        return 3

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, type: int) -> int:
        self._check(handle, "clock")
        return {1: handle.sm_mhz, 2: 877}[type]

    def nvmlDeviceGetMaxClockInfo(self, handle: FakeGpu, type: int) -> int:
        self._check(handle, "clock")
        return {1: 1530, 2: 877}[type]

    def nvmlDeviceGetApplicationsClock(self, handle: FakeGpu, type: int) -> int:
        self._check(handle, "application clock")
        return {1: 1380, 2: 877}[type]

    def nvmlDeviceGetDefaultApplicationsClock(self, handle: FakeGpu, type: int) -> int:
        self._check(handle, "application clock")
        return {1: 1312, 2: 877}[type]

    def nvmlDeviceGetEccMode(self, handle: FakeGpu) -> Sequence[int]:
        self._check(handle, "ecc")
        return [1, 0]

    def nvmlDeviceGetMigMode(self, device: FakeGpu) -> Sequence[int]:
        return [self._check(device, "mig").mig, 0]

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: FakeGpu) -> int:
        self._check(handle, "pcie")
        return 1

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: FakeGpu) -> int:
        self._check(handle, "pcie")
        return 3

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: FakeGpu) -> int:
        return self._check(handle, "pcie").pcie_width

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: FakeGpu) -> int:
        self._check(handle, "pcie")
        return 16

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        self._check(handle, "temperature")
        return 55 + sensor

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:
        return self._check(handle, "event reasons").reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: FakeGpu) -> int:
        return self._check(handle, "throttle reasons").reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> Sequence[Any]:
        self._check(handle, "processes")
        return [SimpleNamespace(pid=pid) for pid in handle.processes]

    def nvmlDeviceGetProcessUtilization(self, handle: FakeGpu, timeStamp: int) -> Sequence[Any]:
        self._check(handle, "utilisation")
        samples = [
            SimpleNamespace(pid=pid, timeStamp=1_000, smUtil=share)
            for pid, share in handle.utilisation.items()
            if timeStamp < 1_000
        ]
        if not samples:
            raise FakeNvmlError(NOT_FOUND)
        return samples
