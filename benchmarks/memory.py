"""How much memory this process has needed so far."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KIB_PER_MIB = 1 << 10
_BYTES_PER_MIB = 1 << 20


def peak_memory_mib() -> float:
    """Largest resident set of this process.

    On Linux this is ``VmHWM``. ``ru_maxrss`` would start a child at the size of the process that
    started it (the kernel carries it over ``exec``), which hides a child that is smaller. Other
    systems have no ``VmHWM``; there it is ``ru_maxrss``.

    Raises:
        OSError: the system tells neither.
    """
    if _STATUS.exists():
        return peak_of_status(_STATUS.read_text(encoding="utf-8"))
    try:
        import resource
    except ImportError as error:
        raise OSError(f"{sys.platform} does not tell a process its peak memory") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_BYTES_PER_MIB if sys.platform == "darwin" else _KIB_PER_MIB)


def peak_of_status(status: str) -> float:
    """MiB of ``VmHWM`` in the text of ``/proc/self/status``."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise OSError("/proc/self/status has no VmHWM")
