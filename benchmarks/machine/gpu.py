"""What an NVIDIA GPU is and how it is set. Not run on a GPU yet: see :mod:`.nvml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from dyninfer.benchmarks.machine.nvml import Handle, NvmlModule, Questions, as_text

_GIB = 1 << 30
_MILLI = 1000
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


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
    driver = questions.ask("driver", nvml.nvmlSystemGetDriverVersion)
    cuda = questions.ask("CUDA driver", nvml.nvmlSystemGetCudaDriverVersion_v2)
    count = questions.ask("GPUs", nvml.nvmlDeviceGetCount)
    if count == 0:
        questions.missing["NVIDIA GPUs"] = "the driver sees none"
    missing, gpus = dict(questions.missing), []
    for index in range(count or 0):
        about = Questions(nvml, f"gpu {index}")
        handle = about.ask("handle", partial(nvml.nvmlDeviceGetHandleByIndex, index))
        if handle is not None:
            gpus.append(read_gpu(nvml, handle, about))
            about.missing[f"gpu {index} locked clocks"] = (
                "NVML has no query for what nvidia-smi -lgc set; the range of gpu_sm_mhz in the "
                "log shows whether the clock held"
            )
        missing |= about.missing
    return NvidiaSystem(
        driver=None if driver is None else as_text(driver),
        cuda_driver=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(gpus),
        missing=missing,
    )


def read_gpu(nvml: NvmlModule, gpu: Handle, about: Questions) -> Gpu:
    """One GPU; what it does not answer is in ``about.missing``."""
    ask = about.ask
    name = ask("name", lambda: nvml.nvmlDeviceGetName(gpu))
    capability = ask("compute capability", lambda: nvml.nvmlDeviceGetCudaComputeCapability(gpu))
    space = ask("memory", lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
    mode = ask("compute mode", lambda: nvml.nvmlDeviceGetComputeMode(gpu))
    found = Gpu(
        name=None if name is None else as_text(name),
        compute_capability=None if capability is None else ".".join(map(str, capability)),
        memory_gib=None if space is None else round(space.total / _GIB, 1),
        persistence=_flag(ask("persistence", lambda: nvml.nvmlDeviceGetPersistenceMode(gpu))),
        compute_mode=None if mode is None else COMPUTE_MODES.get(mode, str(mode)),
        ecc=_first(ask("ECC", lambda: nvml.nvmlDeviceGetEccMode(gpu))),
        mig=_first(ask("MIG", lambda: nvml.nvmlDeviceGetMigMode(gpu))),
    )
    return _with_link(nvml, gpu, about, _with_clocks(nvml, gpu, about, found))


def _with_clocks(nvml: NvmlModule, gpu: Handle, about: Questions, found: Gpu) -> Gpu:
    ask, sm, memory = about.ask, nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    now, highest = nvml.nvmlDeviceGetClockInfo, nvml.nvmlDeviceGetMaxClockInfo
    application = nvml.nvmlDeviceGetApplicationsClock
    return replace(
        found,
        sm_mhz=ask("SM clock", lambda: now(gpu, sm)),
        memory_mhz=ask("memory clock", lambda: now(gpu, memory)),
        max_sm_mhz=ask("highest SM clock", lambda: highest(gpu, sm)),
        max_memory_mhz=ask("highest memory clock", lambda: highest(gpu, memory)),
        application_sm_mhz=ask("application clock", lambda: application(gpu, sm)),
        application_memory_mhz=ask("application memory clock", lambda: application(gpu, memory)),
        default_application_sm_mhz=ask(
            "default application clock", lambda: nvml.nvmlDeviceGetDefaultApplicationsClock(gpu, sm)
        ),
    )


def _with_link(nvml: NvmlModule, gpu: Handle, about: Questions, found: Gpu) -> Gpu:
    ask = about.ask
    limit = ask("power limit", lambda: nvml.nvmlDeviceGetPowerManagementLimit(gpu))
    shipped = ask("default power limit", lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu))
    return replace(
        found,
        power_limit_w=None if limit is None else limit / _MILLI,
        default_power_limit_w=None if shipped is None else shipped / _MILLI,
        pcie_generation=ask("PCIe", lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu)),
        max_pcie_generation=ask("PCIe", lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu)),
        pcie_width=ask("PCIe width", lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)),
        max_pcie_width=ask("PCIe width", lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu)),
    )


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _first(states: Sequence[int] | None) -> bool | None:
    """The current one of the current and the pending state."""
    return None if states is None else bool(states[0])
