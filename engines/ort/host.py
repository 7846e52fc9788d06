"""Backends whose tensors are those of ONNX Runtime on a CPU, so that their stages mix."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dyninfer.engines.base import Backend
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.engines.ort.tensor import OrtTensor, OrtWorkspace
from dyninfer.engines.threads import Threads
from dyninfer.types import Int64Array


class HostBackend(Backend[OrtTensor, OrtWorkspace]):
    """Tensors in the host's memory; a subclass opens stages."""

    def __init__(self, threads: Threads = None) -> None:
        self.threads = threads
        self._ort = OrtBackend("cpu", threads=threads)

    def close(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.close`."""
        self._ort.close()

    def workspace(self) -> OrtWorkspace:
        """See :meth:`dyninfer.engines.base.Backend.workspace`."""
        return self._ort.workspace()

    def from_host(self, array: npt.NDArray[Any], workspace: OrtWorkspace) -> OrtTensor:
        """See :meth:`dyninfer.engines.base.Backend.from_host`."""
        return self._ort.from_host(array, workspace)

    def from_device(self, name: str, array: DeviceArray, workspace: OrtWorkspace) -> OrtTensor:
        """See :meth:`dyninfer.engines.base.Backend.from_device`."""
        return self._ort.from_device(name, array, workspace)

    def gather(
        self, name: str, tensor: OrtTensor, rows: Int64Array, workspace: OrtWorkspace
    ) -> OrtTensor:
        """See :meth:`dyninfer.engines.base.Backend.gather`."""
        return self._ort.gather(name, tensor, rows, workspace)
