"""What a benchmark ran on, without anything that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from dyninfer.benchmarks.machine.cpu_state import CpuState, read_cpu_state
from dyninfer.benchmarks.machine.gpu import Gpu, NvidiaSystem, read_nvidia_system
from dyninfer.benchmarks.machine.host import Host, read_host, read_text
from dyninfer.benchmarks.machine.jetson import Jetson, read_jetson
from dyninfer.benchmarks.machine.nvml import LoadNvml, load_nvml
from dyninfer.hardware import cpu_field, usable_cores

LIBRARIES = (
    "dyninfer",
    "numpy",
    "onnxruntime",
    "openvino",
    "onnxruntime-gpu",
    "onnx",
    "opencv-python-headless",
    "opencv-python",
    "torch",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-rtx",
    "cuda-python",
    "pycuda",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-ml-py",
)
RELEVANT_FLAGS = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "asimd",
    "asimddp",
    "sve",
    "i8mm",
)
_MEMINFO = Path("proc/meminfo")
_CPUINFO = Path("proc/cpuinfo")
_CUDA_TOOLKIT = Path("usr/local/cuda/version.json")
_KIB_PER_GIB = 1 << 20


@dataclass(frozen=True)
class Machine:
    """A machine as far as it matters for a time.

    Attributes:
        usable_cores: how many this process may use.
        cpu_flags: instruction sets that inference engines use, of those it has.
        memory_gib: main memory; None where it cannot be told.
        system: operating system, number of its release, architecture.
        versions: library -> version, of those that are installed.
        load_average_1min: runnable processes on average; None where it cannot be told.
        cpu_state: how the processor is set.
        host: virtual machine, container, quota, battery.
        cuda_driver: newest CUDA that the driver runs.
        cuda_toolkit: version of the CUDA that is installed for the whole system, if one is.
        gpus: NVIDIA's, in the order of its management library.
        jetson: the module, if this is one.
        missing: what could not be told -> why.
    """

    cpu: str
    usable_cores: int
    cpu_flags: tuple[str, ...]
    memory_gib: float | None
    system: str
    python: str
    versions: dict[str, str]
    load_average_1min: float | None
    cpu_state: CpuState | None = None
    host: Host | None = None
    nvidia_driver: str | None = None
    cuda_driver: str | None = None
    cuda_toolkit: str | None = None
    gpus: tuple[Gpu, ...] = ()
    jetson: Jetson | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def describe_machine(
    root: Path = Path("/"),
    load_nvml: LoadNvml = load_nvml,
) -> Machine:
    """The machine that this runs on; ``root`` is where ``proc``, ``sys`` and ``etc`` are."""
    cpuinfo = read_text(root / _CPUINFO)
    state, missing = read_cpu_state(root)
    jetson, missing_of_jetson = read_jetson(root)
    nvidia = _nvidia(load_nvml)
    return Machine(
        cpu=cpu_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        usable_cores=usable_cores(),
        cpu_flags=cpu_flags(cpuinfo),
        memory_gib=memory_gib(read_text(root / _MEMINFO)),
        system=system_name(platform.system(), platform.release(), platform.machine()),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=installed_versions(LIBRARIES),
        load_average_1min=load_average(),
        cpu_state=state,
        host=read_host(root),
        nvidia_driver=nvidia.driver,
        cuda_driver=nvidia.cuda_driver,
        cuda_toolkit=cuda_toolkit(read_text(root / _CUDA_TOOLKIT)),
        gpus=nvidia.gpus,
        jetson=jetson,
        missing=missing | missing_of_jetson | nvidia.missing,
    )


def _nvidia(load: LoadNvml) -> NvidiaSystem:
    nvml, why = load()
    if nvml is None:
        return NvidiaSystem(None, None, (), {"NVIDIA GPUs": why})
    try:
        return read_nvidia_system(nvml)
    finally:
        nvml.nvmlShutdown()


def system_name(system: str, release: str, architecture: str) -> str:
    """Operating system, the number of its release without a vendor's suffix, architecture."""
    number = re.match(r"[\d.]*", release)
    return " ".join(part for part in (system, number[0] if number else "", architecture) if part)


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Those of :data:`RELEVANT_FLAGS` that the text of ``/proc/cpuinfo`` lists."""
    present = set((cpu_field(cpuinfo, "flags") or cpu_field(cpuinfo, "Features")).split())
    return tuple(flag for flag in RELEVANT_FLAGS if flag in present)


def memory_gib(meminfo: str) -> float | None:
    """Main memory from the text of ``/proc/meminfo``."""
    total = cpu_field(meminfo, "MemTotal").split()
    return round(int(total[0]) / _KIB_PER_GIB, 1) if total else None


def cuda_toolkit(version_file: str) -> str | None:
    """The version in the text of the toolkit's ``version.json``; None if it is not there."""
    match = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', version_file)
    return match[1] if match else None


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Distribution name -> version, for those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_average() -> float | None:
    """The system's load average over one minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
