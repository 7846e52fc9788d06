"""Backends that run stages: one folder each, opened by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from dyninfer.engines.base import Backend
from dyninfer.engines.threads import SHARED, Threads, check_threads
from dyninfer.errors import BackendUnavailable, InputError
from dyninfer.forks import Opening

TENSORRT = ("tensorrt", "tensorrt-rtx")
ON_HOST = ("onnxruntime", "openvino")
"""Backends whose tensors lie in the host's memory, so that a bundle's stages mix."""
BACKENDS = (*ON_HOST, *TENSORRT)


def open_backend(
    backend: str | None = None,
    device: str | None = None,
    provider: str | None = None,
    threads: Threads = None,
) -> Backend[Any, Any]:
    """Open a backend on a device.

    Args:
        backend: ``"onnxruntime"``, ``"openvino"``, ``"tensorrt"``, ``"tensorrt-rtx"``, one for each
            stage as in ``"first=onnxruntime,second=openvino"``, or None for ONNX Runtime, which
            runs everywhere.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, with OpenVINO ``"gpu:N"``; None for the CPU,
            or the first GPU where the backend needs one.
        provider: ONNX Runtime's execution provider, ``"cpu"``, ``"cuda"`` or ``"tensorrt"``;
            None takes the device's own.
        threads: of each stage on a CPU; None for one on every core, ``"shared"`` for ONNX
            Runtime's pool of all sessions in the process.

    Raises:
        InputError: that many threads cannot be, or not there.
        BackendUnavailable: the backend, device or provider is unknown or not installed.
    """
    check_threads(threads)
    if isinstance(backend, str) and re.search("[=,]", backend):
        return _mixed(backend, device, provider, threads)
    if backend not in (None, *BACKENDS):
        near = get_close_matches(str(backend), (*BACKENDS, "auto"), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BackendUnavailable(
            f"backend {backend!r} is unknown, expected one of {', '.join(map(repr, BACKENDS))}, or "
            f"'auto' after dyninfer build --backend auto{hint}"
        )
    if backend in TENSORRT:
        if provider is not None:
            raise BackendUnavailable(
                f"provider {provider!r} belongs to ONNX Runtime; leave it out with backend "
                f"{backend!r}"
            )
        if threads is not None:
            raise InputError(
                f"threads is {threads!r}, which is for stages on a CPU; leave it out with backend "
                f"{backend!r}"
            )
        with Opening():
            from dyninfer.engines.trt.backend import TrtBackend
            from dyninfer.engines.trt.library import Flavour

        return TrtBackend(Flavour(backend), "cuda:0" if device is None else device)
    if backend == "openvino":
        with Opening():
            from dyninfer.engines.ov.backend import OvBackend  # imports openvino

        return OvBackend("cpu" if device is None else device, provider, threads)
    assert backend in (None, "onnxruntime")  # a name in BACKENDS needs a branch here
    with Opening():
        from dyninfer.engines.ort.backend import OrtBackend  # imports onnxruntime

    return OrtBackend("cpu" if device is None else device, provider, threads)


def host_versions() -> dict[str, str]:
    """Backend -> version, of those in :data:`ON_HOST` that are installed.

    OpenVINO is not imported for it.

    Raises:
        BackendUnavailable: ONNX Runtime is not installed.
    """
    from dyninfer.engines.ort.library import ort

    found = {"onnxruntime": str(ort.__version__)}
    with suppress(PackageNotFoundError):
        found["openvino"] = installed_version("openvino")
    return found


def parse_backends(text: str) -> Mapping[str, str]:
    """Stage -> backend of ``"first=onnxruntime,second=openvino"``; ``""`` -> that of all others.

    A backend alone is for the stages that are not named; without one, ONNX Runtime is.

    Raises:
        InputError: a backend is unknown or has no tensors in the host's memory, or a stage is named
            twice.
    """
    found: dict[str, str] = {}
    for item in text.split(","):
        stage, equals, backend = (part.strip() for part in item.rpartition("="))
        if backend not in ON_HOST:
            raise InputError(
                f"{backend!r} in {text!r} is no backend that stages can be mixed of, expected "
                f"{' or '.join(ON_HOST)}; for example first=onnxruntime,second=openvino"
            )
        if (equals and not stage) or stage in found:
            what = f"names {stage!r} twice" if stage else "has a backend without a stage"
            raise InputError(f"{text!r} {what}; for example first=onnxruntime,second=openvino")
        found[stage] = backend
    return {"": "onnxruntime"} | found


def _mixed(
    text: str, device: str | None, provider: str | None, threads: Threads
) -> Backend[Any, Any]:
    if device not in (None, "cpu"):
        raise BackendUnavailable(
            f"device {device!r} was asked for with stages on several backends, expected 'cpu'"
        )
    names = parse_backends(text)
    opened: dict[str, Backend[Any, Any]] = {}
    for name in dict.fromkeys(names.values()):
        theirs = name == "onnxruntime"
        own = None if threads == SHARED and not theirs else threads
        opened[name] = open_backend(name, "cpu", provider if theirs else None, own)
    from dyninfer.engines.mixed import MixedBackend

    return MixedBackend({stage: opened[name] for stage, name in names.items()}, threads)
