"""The tools that an export needs: that they are installed, and that they are silent."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from dyninfer.errors import MissingExtra

EXPORT_MODULES = ("torch", "onnx", "onnx_ir", "onnxscript", "yaml")


def require_export_extra() -> None:
    """Raise :class:`MissingExtra` that names every missing module and the command to run."""
    missing = [name for name in EXPORT_MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f'exporting needs {", ".join(missing)}; install with pip install "dyninfer[export]"'
        )


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
