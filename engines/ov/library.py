"""OpenVINO's import, and what it raises."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dyninfer.errors import BackendUnavailable, DyninferError
from dyninfer.foreign_errors import let_through, reason_of
from dyninfer.forks import leave_alone
from dyninfer.installing import pip_install

_TELEMETRY = "openvino_telemetry"
"""It counts imports in the home folder, and sends them to its vendor. OpenVINO does without it."""


@contextmanager
def _without_telemetry() -> Iterator[None]:
    if _TELEMETRY in sys.modules:  # the application's own choice
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # so that importing it fails
    try:
        yield
    finally:
        sys.modules.pop(_TELEMETRY, None)


try:
    with _without_telemetry():
        import openvino as ov
except ImportError as _error:
    raise BackendUnavailable(
        f"OpenVINO cannot be imported ({_error}); install it with {pip_install('openvino')}"
    ) from _error

__all__ = ["ov"]  # for others of this folder, who are told what is missing as well

VERSION = str(ov.__version__).partition("-")[0]
_AROUND = re.compile(r"Exception from|Check '|Summary:|Model wasn't|FrontEnd API|To facilitate")
"""How lines start that say where in OpenVINO's code something went wrong, and not what."""


_cores: dict[int, Any] = {}
"""Process -> what knows its devices."""


def open_core() -> Any:
    """What knows the devices and compiles for them; one for the process, never freed.

    Its CPU plugin gives the thread that loads it a stack for handlers of signals, which Python's
    run on, and takes that away when it is freed: from that thread alone if it is freed there, and
    else a later signal ends the process.
    """
    process = os.getpid()
    if process not in _cores:  # a forked child has no threads of its parent's
        _cores[process] = ov.Core()
        leave_alone(_cores[process])
    return _cores[process]


def is_ov_error(error: Exception) -> bool:
    """Whether OpenVINO itself raised this; all of its errors are of one class of Python's."""
    return type(error) is RuntimeError


def told(error: Exception) -> str:
    """What OpenVINO's exception says, without the places of its source code."""
    lines = (line.strip(" -") for line in str(error).splitlines())
    said = [line for line in lines if line and not _AROUND.match(line)]
    return said[-1].removeprefix("Caught exception: ") if said else reason_of(error)


@contextmanager
def ov_errors(kind: type[DyninferError], what: str) -> Iterator[None]:
    """Raise ``kind`` for what OpenVINO raises; all else passes through."""
    try:
        yield
    except Exception as error:
        let_through(error)
        if not is_ov_error(error):
            raise
        raise kind(f"{what}: {told(error)}") from error
