"""Backends that run stages: one folder each, opened by name."""

from __future__ import annotations

from typing import Any

from dyninfer.engines.base import Backend
from dyninfer.errors import BackendUnavailable

BACKENDS = ("onnxruntime",)
PLANNED = ("tensorrt", "tensorrt-rtx")


def open_backend(
    backend: str | None = None,
    device: str = "cpu",
    provider: str | None = None,
    shared_threads: bool = False,
) -> Backend[Any, Any]:
    """Open a backend on a device.

    Args:
        backend: ``"onnxruntime"``, or None for the best one available.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        shared_threads: let all sessions of the process share one pool of threads.

    Raises:
        BackendUnavailable: the backend, device or provider is unknown or not installed.
    """
    if backend in PLANNED:
        raise BackendUnavailable(
            f"backend {backend!r} is not part of this version; "
            'use backend="onnxruntime" with provider="tensorrt" on a CUDA device'
        )
    if backend not in (None, *BACKENDS):
        raise BackendUnavailable(
            f"backend {backend!r} is unknown, expected {' or '.join(map(repr, BACKENDS))}"
        )
    from dyninfer.engines.ort.backend import OrtBackend  # imports onnxruntime

    return OrtBackend(device, provider, shared_threads)
