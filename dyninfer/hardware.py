"""What a device calls itself: times that were measured on one do not hold for another."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path

from dyninfer.plain_text import counted

_CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_field(cpuinfo: str, name: str) -> str:
    """The first entry of this name in the text of ``/proc/cpuinfo``, or an empty string."""
    for line in cpuinfo.splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return ""


@lru_cache(maxsize=1)
def read_cpuinfo() -> str:
    """The text of ``/proc/cpuinfo``, or an empty string where there is none."""
    try:
        return _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor's model as it names itself, with the cores that this process may use."""
    model = cpu_field(read_cpuinfo(), "model name") or platform.processor() or platform.machine()
    return f"{model}, {counted(usable_cores(), 'core')}"


_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT of cuda.h
_OF_SEVERAL_SIZES = frozenset({"Orin"})  # a Nano, an NX and an AGX all call themselves that


def gpu_title(name: str, multiprocessors: int) -> str:
    """A GPU's own name, with its multiprocessors where GPUs of several sizes have that name."""
    sized = name in _OF_SEVERAL_SIZES
    return f"{name}, {counted(multiprocessors, 'multiprocessor')}" if sized else name


def gpu_name(number: int) -> str:
    """What NVIDIA's driver calls a GPU; ``cuda:N`` where there is no driver to ask."""
    name = ctypes.create_string_buffer(256)
    device, size = ctypes.c_int(), ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), number)
            or driver.cuDeviceGetName(name, len(name), device)
            or driver.cuDeviceGetAttribute(ctypes.byref(size), _MULTIPROCESSORS, device)
        )
    except (OSError, AttributeError):
        failed = 1
    if failed:
        return f"cuda:{number}"
    return gpu_title(name.value.decode(errors="replace"), size.value)
