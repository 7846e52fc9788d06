"""What a benchmark ran on, without anything that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dyninfer.hardware import cpu_field, read_cpuinfo, usable_cores

LIBRARIES = (
    "dyninfer",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
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
_MEMINFO = Path("/proc/meminfo")
_GIB = 1 << 30
_KIB = 1 << 10


@dataclass(frozen=True)
class Machine:
    """A machine as far as it matters for a time.

    Attributes:
        cpu: the processor's model as it names itself.
        usable_cores: how many this process may use.
        cpu_flags: instruction sets that inference engines use, of those it has.
        memory_gib: main memory; None where it cannot be told.
        system: operating system, number of its release, architecture.
        python: implementation and version.
        versions: library -> version, of those that are installed.
        load_average_1min: runnable processes on average; None where it cannot be told.
    """

    cpu: str
    usable_cores: int
    cpu_flags: tuple[str, ...]
    memory_gib: float | None
    system: str
    python: str
    versions: dict[str, str]
    load_average_1min: float | None


def describe_machine() -> Machine:
    """The machine that this runs on."""
    cpuinfo = read_cpuinfo()
    return Machine(
        cpu=cpu_model(cpuinfo) or platform.processor() or platform.machine(),
        usable_cores=usable_cores(),
        cpu_flags=cpu_flags(cpuinfo),
        memory_gib=memory_gib(_read(_MEMINFO)),
        system=system_name(platform.system(), platform.release(), platform.machine()),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=installed_versions(LIBRARIES),
        load_average_1min=load_average(),
    )


def system_name(system: str, release: str, architecture: str) -> str:
    """Operating system, the number of its release without a vendor's suffix, architecture."""
    number = re.match(r"[\d.]*", release)
    return " ".join(part for part in (system, number[0] if number else "", architecture) if part)


def cpu_model(cpuinfo: str) -> str:
    """The model name in the text of ``/proc/cpuinfo``, or an empty string."""
    return cpu_field(cpuinfo, "model name")


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Those of :data:`RELEVANT_FLAGS` that the text of ``/proc/cpuinfo`` lists."""
    present = set((cpu_field(cpuinfo, "flags") or cpu_field(cpuinfo, "Features")).split())
    return tuple(flag for flag in RELEVANT_FLAGS if flag in present)


def memory_gib(meminfo: str) -> float | None:
    """Main memory from the text of ``/proc/meminfo``."""
    total = cpu_field(meminfo, "MemTotal").split()
    return round(int(total[0]) * _KIB / _GIB, 1) if total else None


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
