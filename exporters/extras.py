"""Checks that what an export needs is installed."""

from __future__ import annotations

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
