"""Backends that run stages: one folder each, opened by name."""

from __future__ import annotations

from typing import Any

from dyninfer.engines.base import Backend
from dyninfer.errors import BackendUnavailable
from dyninfer.forks import Opening

TENSORRT = ("tensorrt", "tensorrt-rtx")
BACKENDS = ("onnxruntime", *TENSORRT)


def open_backend(
    backend: str | None = None,
    device: str | None = None,
    provider: str | None = None,
    shared_threads: bool = False,
) -> Backend[Any, Any]:
    """Open a backend on a device.

    Args:
        backend: ``"onnxruntime"``, ``"tensorrt"``, ``"tensorrt-rtx"``, or None for ONNX Runtime,
            which runs everywhere.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None for the CPU, or the first GPU where
            the backend needs one.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        shared_threads: let all sessions of the process share one pool of threads.

    Raises:
        BackendUnavailable: the backend, device or provider is unknown or not installed.
    """
    if backend not in (None, *BACKENDS):
        raise BackendUnavailable(
            f"backend {backend!r} is unknown, expected one of {', '.join(map(repr, BACKENDS))}"
        )
    if backend in TENSORRT:
        if provider is not None:
            raise BackendUnavailable(
                f"provider {provider!r} belongs to ONNX Runtime; leave it out with backend "
                f"{backend!r}"
            )
        with Opening():
            from dyninfer.engines.trt.backend import TrtBackend
            from dyninfer.engines.trt.library import Flavour

        return TrtBackend(Flavour(backend), "cuda:0" if device is None else device)
    assert backend in (None, "onnxruntime")  # a name in BACKENDS needs a branch here
    with Opening():
        from dyninfer.engines.ort.backend import OrtBackend  # imports onnxruntime

    return OrtBackend("cpu" if device is None else device, provider, shared_threads)
