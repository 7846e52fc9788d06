"""The tools that an export needs: that they are installed, and that they are silent."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

from dyninfer.errors import MissingExtra
from dyninfer.installing import pip_install

EXPORT_MODULES = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "yaml")


def require_export_extra(what: str = "exporting") -> None:
    """Raise :class:`MissingExtra` that names what needs it, every missing module and a remedy."""
    missing = [name for name in EXPORT_MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"{what} needs {', '.join(missing)}; install with {pip_install('export')}"
        )


def return_memory() -> None:
    """Give what is free back to the system, where the C library is glibc.

    After an export, that has a gigabyte and more in pieces between others: what follows would take
    as much again.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Hold back warnings, and what these loggers (or all) say; errors still are exceptions."""
    loggers = [logging.getLogger(name) for name in names or (None,)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
