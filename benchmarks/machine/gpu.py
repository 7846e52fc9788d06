"""What an NVIDIA GPU is and how it is set, and samples of it. Not run on one: see :mod:`.nvml`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from dyninfer.benchmarks.machine.nvml import (
    Handle,
    NvmlModule,
    Questions,
    as_text,
    reason_of,
)

_GIB = 1 << 30
_MILLI = 1000
_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
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


@dataclass(frozen=True)
class Gpu:
    """One GPU; None where the driver does not say.

    Attributes:
        compute_capability: such as ``7.0`` for a V100.
        power_limit_w: at which the driver lowers the clocks; ``default_power_limit_w`` as shipped.
        persistence: whether the driver stays loaded, and settings with it, with no process there.
        compute_mode: how many processes may use it.
        sm_mhz: clock of the multiprocessors when it was read; a GPU at rest is slow.
        application_sm_mhz: clock that the driver aims for under load; differs from
            ``default_application_sm_mhz`` where somebody set it (``nvidia-smi -ac``).
        ecc: whether memory errors are corrected, which costs bandwidth on some GPUs.
        mig: whether it is divided into instances.
        pcie_generation: of the link now; at rest it may be lower than under load.
        pcie_width: lanes of the link now.
    """

    name: str | None = None
    compute_capability: str | None = None
    memory_gib: float | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    persistence: bool | None = None
    compute_mode: str | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    max_sm_mhz: float | None = None
    max_memory_mhz: float | None = None
    application_sm_mhz: float | None = None
    application_memory_mhz: float | None = None
    default_application_sm_mhz: float | None = None
    ecc: bool | None = None
    mig: bool | None = None
    pcie_generation: int | None = None
    max_pcie_generation: int | None = None
    pcie_width: int | None = None
    max_pcie_width: int | None = None


@dataclass(frozen=True)
class NvidiaSystem:
    """The driver and its GPUs, in NVML's order."""

    driver: str | None
    cuda_driver: str | None
    gpus: tuple[Gpu, ...]
    missing: dict[str, str]


def read_nvidia_system(nvml: NvmlModule) -> NvidiaSystem:
    """Ask an initialised NVML for everything."""
    questions = Questions(nvml, "NVIDIA")
    driver = questions.ask("driver", nvml.nvmlSystemGetDriverVersion, read=as_text)
    cuda = questions.ask("CUDA driver", nvml.nvmlSystemGetCudaDriverVersion_v2)
    count = questions.ask("GPUs", nvml.nvmlDeviceGetCount)
    if count == 0:
        questions.missing["NVIDIA GPUs"] = "the driver sees none"
    missing, gpus = dict(questions.missing), []
    for index in range(count or 0):
        about = Questions(nvml, f"gpu {index}")
        handle = about.ask("handle", nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            gpus.append(_read_gpu(nvml, handle, about))
            about.missing[f"gpu {index} locked clocks"] = (
                "NVML has no query for what nvidia-smi -lgc set; the range of gpu_sm_mhz in the "
                "log shows whether the clock held"
            )
        missing |= about.missing
    return NvidiaSystem(
        driver=driver,
        cuda_driver=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(gpus),
        missing=missing,
    )


def _read_gpu(nvml: NvmlModule, gpu: Handle, about: Questions) -> Gpu:
    """One GPU; what it does not answer is in ``about.missing``."""
    ask, sm, memory = about.ask, nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    now, highest = nvml.nvmlDeviceGetClockInfo, nvml.nvmlDeviceGetMaxClockInfo
    application = nvml.nvmlDeviceGetApplicationsClock
    usual = nvml.nvmlDeviceGetDefaultApplicationsClock
    capability = nvml.nvmlDeviceGetCudaComputeCapability
    limit = nvml.nvmlDeviceGetPowerManagementLimit
    shipped = nvml.nvmlDeviceGetPowerManagementDefaultLimit
    return Gpu(
        name=ask("name", nvml.nvmlDeviceGetName, gpu, read=as_text),
        compute_capability=ask("compute capability", capability, gpu, read=_with_dots),
        memory_gib=ask("memory", nvml.nvmlDeviceGetMemoryInfo, gpu, read=_total_gib),
        power_limit_w=ask("power limit", limit, gpu, read=_watts),
        default_power_limit_w=ask("default power limit", shipped, gpu, read=_watts),
        persistence=ask("persistence", nvml.nvmlDeviceGetPersistenceMode, gpu, read=bool),
        compute_mode=ask("compute mode", nvml.nvmlDeviceGetComputeMode, gpu, read=_mode),
        sm_mhz=ask("SM clock", now, gpu, sm),
        memory_mhz=ask("memory clock", now, gpu, memory),
        max_sm_mhz=ask("highest SM clock", highest, gpu, sm),
        max_memory_mhz=ask("highest memory clock", highest, gpu, memory),
        application_sm_mhz=ask("application clock", application, gpu, sm),
        application_memory_mhz=ask("application memory clock", application, gpu, memory),
        default_application_sm_mhz=ask("default application clock", usual, gpu, sm),
        ecc=ask("ECC", nvml.nvmlDeviceGetEccMode, gpu, read=_current),
        mig=ask("MIG", nvml.nvmlDeviceGetMigMode, gpu, read=_current),
        pcie_generation=ask("PCIe", nvml.nvmlDeviceGetCurrPcieLinkGeneration, gpu),
        max_pcie_generation=ask("PCIe", nvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu),
        pcie_width=ask("PCIe width", nvml.nvmlDeviceGetCurrPcieLinkWidth, gpu),
        max_pcie_width=ask("PCIe width", nvml.nvmlDeviceGetMaxPcieLinkWidth, gpu),
    )


def _with_dots(capability: Sequence[int]) -> str:
    return ".".join(map(str, capability))


def _total_gib(memory: Any) -> float:
    return round(float(memory.total) / _GIB, 1)


def _watts(milliwatts: int) -> float:
    return milliwatts / _MILLI


def _mode(number: int) -> str:
    return _COMPUTE_MODES.get(number, str(number))


def _current(states: Sequence[int]) -> bool:
    """The first of the current and the pending state."""
    return bool(states[0])


def throttle_words(bits: int) -> tuple[str, ...]:
    """The reasons in a mask that slow a GPU down although nobody chose it."""
    return tuple(words for bit, words in THROTTLE_REASONS.items() if bits & bit)


class GpuSampler:
    """Clocks, temperature, power, and what other processes do on one GPU.

    A query that the GPU refuses once is in :attr:`missing` and not asked again. ``family`` gives
    process numbers that are not others', without this process.
    """

    def __init__(
        self, nvml: NvmlModule, gpu: Handle, family: Callable[[], Set[int]] = frozenset
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
