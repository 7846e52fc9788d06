"""NVIDIA's management library, by the Python package ``nvidia-ml-py`` (extra ``report``).

Nothing here was run on a GPU. What the code asks is tested against a stand-in, whose names and
parameters a test compares with the installed package.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from dyninfer.installing import pip_install

Handle = Any
"""An opaque pointer to a device."""
NvmlModule = Any
"""The module ``pynvml``, which has no types: clocks in MHz, power in mW, energy in mJ."""
LoadNvml = Callable[[], tuple[NvmlModule | None, str]]


def load_nvml() -> tuple[NvmlModule | None, str]:
    """The module, initialised, or None and why there is none.

    Each call that gives a module wants one ``nvmlShutdown``; NVML counts them.
    """
    try:
        module = importlib.import_module("pynvml")
    except ImportError:
        return None, f"nvidia-ml-py is not installed: {pip_install('report')}"
    return start_nvml(module)


def start_nvml(module: NvmlModule) -> tuple[NvmlModule | None, str]:
    """Initialise a module; None and the reason where there is no driver."""
    try:
        module.nvmlInit()
    except module.NVMLError as error:
        return None, f"no NVIDIA driver answers: {reason_of(error)}"
    return module, ""


def reason_of(error: Exception) -> str:
    """NVML's own words, such as ``Not Supported``, with a hint where there is something to do."""
    text = str(error)
    if "Permission" in text:
        return f"{text}: ask the administrator, or run as root"
    return text or type(error).__name__


def as_text(value: str | bytes) -> str:
    """Older packages give bytes."""
    return value.decode() if isinstance(value, bytes) else value


class Questions:
    """Asks NVML one thing after the other and keeps the reasons for what it does not answer."""

    def __init__(self, nvml: NvmlModule, about: str) -> None:
        self._nvml = nvml
        self._about = about
        self.missing: dict[str, str] = {}

    def ask(
        self,
        what: str,
        query: Callable[..., Any],
        *arguments: object,
        read: Callable[[Any], Any] = lambda answer: answer,
    ) -> Any:
        """The answer as it is read, or None with a line in :attr:`missing`."""
        try:
            return read(query(*arguments))
        except self._nvml.NVMLError as error:
            self.missing[f"{self._about} {what}"] = reason_of(error)
            return None


def find_handle(
    nvml: NvmlModule, device: str, environment: Mapping[str, str] = os.environ
) -> tuple[Handle | None, str]:
    """NVML's handle of a CUDA device such as ``cuda:0``, or None and why it cannot be told.

    NVML counts by bus and knows nothing of ``CUDA_VISIBLE_DEVICES``; CUDA counts the fastest
    first unless ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID`` (CUDA programming guide, environment
    variables).
    """
    index = int(device.partition(":")[2] or 0)
    try:
        count = nvml.nvmlDeviceGetCount()
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
        names = [name.strip() for name in visible.split(",")] if visible else []
        if names and index < len(names) and names[index].startswith("GPU-"):
            return nvml.nvmlDeviceGetHandleByUUID(names[index]), ""
        if count == 1 and (not names or names == ["0"]):
            return (nvml.nvmlDeviceGetHandleByIndex(0), "") if index == 0 else _no_such(device, 1)
        if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            return None, (
                f"which of {count} GPUs {device} is cannot be told: set "
                "CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        picked = names[index] if index < len(names) else str(index) if not names else ""
        if not picked.isdigit() or int(picked) >= count:
            return _no_such(device, count)
        return nvml.nvmlDeviceGetHandleByIndex(int(picked)), ""
    except nvml.NVMLError as error:
        return None, f"{device}: {reason_of(error)}"


def _no_such(device: str, count: int) -> tuple[None, str]:
    return None, f"{device} is not among the {count} GPUs that NVML and CUDA_VISIBLE_DEVICES show"
