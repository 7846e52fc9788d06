"""What a device calls itself: times that were measured on one do not hold for another."""

from __future__ import annotations

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
