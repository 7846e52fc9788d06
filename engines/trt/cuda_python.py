"""CUDA through cuda-python (``cuda.bindings.runtime``), NVIDIA's own bindings."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from dyninfer.engines.trt.cuda import Cuda, DeviceProperties, HostBytes, dotted, first_line
from dyninfer.engines.trt.cuda_api import CudaDeviceProp, CudaRuntime, Result
from dyninfer.errors import BackendUnavailable, EngineRunError

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""Where the runtime API is: today's place, and that of cuda-python before 12.6."""


def import_runtime() -> CudaRuntime | None:
    """The module with CUDA's runtime API, or None where cuda-python is not installed."""
    for name in MODULES:
        try:
            return cast(CudaRuntime, importlib.import_module(name))
        except ImportError:
            continue
    return None


class CudaPython(Cuda):
    """One GPU through CUDA's runtime API. See :class:`dyninfer.engines.trt.cuda.Cuda`.

    Raises:
        BackendUnavailable: there is no driver, it is too old, or there is no such GPU.
    """

    package = "cuda-python"
    has_graphs = True

    def __init__(self, device: int, runtime: CudaRuntime) -> None:
        self._api = runtime
        self.device = device
        try:
            count = self._call(self._api.cudaGetDeviceCount)
        except EngineRunError as error:
            raise BackendUnavailable(
                f"no GPU can be used ({error}); install or update the NVIDIA driver"
            ) from error
        self._check_number(count)
        found: CudaDeviceProp = self._call(self._api.cudaGetDeviceProperties, device)
        self.properties = DeviceProperties(
            name=found.name.split(b"\0")[0].decode(),
            compute_capability=(int(found.major), int(found.minor)),
            driver=dotted(int(self._call(self._api.cudaDriverGetVersion))),
        )

    def _call(self, function: Callable[..., Result], *arguments: Any) -> Any:
        """Call a function of the API and check its first result, an error code.

        Without a driver the bindings answer in two ways: most functions return a code, those
        that load a library first raise RuntimeError (``DynamicLibNotFoundError``).
        """
        name = function.__name__
        try:
            code, *results = function(*arguments)
        except RuntimeError as error:
            raise EngineRunError(f"CUDA failed in {name}: {first_line(error)}") from error
        if code != self._api.cudaError_t.cudaSuccess:
            raise EngineRunError(f"CUDA failed in {name}: {code.name} ({int(code)})")
        return results[0] if len(results) == 1 else results

    @contextmanager
    def active(self) -> Iterator[None]:
        former = int(self._call(self._api.cudaGetDevice))
        if former == self.device:
            yield
            return
        self._call(self._api.cudaSetDevice, self.device)
        try:
            yield
        finally:
            self._call(self._api.cudaSetDevice, former)

    def allocate(self, size: int) -> int:
        return int(self._call(self._api.cudaMalloc, size))

    def free(self, pointer: int) -> None:
        self._call(self._api.cudaFree, pointer)

    def allocate_host(self, size: int) -> HostBytes:
        pointer = int(self._call(self._api.cudaHostAlloc, size, self._api.cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def free_host(self, array: HostBytes) -> None:
        self._call(self._api.cudaFreeHost, array.ctypes.data)

    def new_stream(self) -> Any:
        return self._call(self._api.cudaStreamCreateWithFlags, self._api.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Any) -> None:
        self._call(self._api.cudaStreamDestroy, stream)

    def handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._call(self._api.cudaStreamSynchronize, stream)

    def new_event(self, *, timing: bool) -> Any:
        api = self._api
        flags = api.cudaEventDefault if timing else api.cudaEventDisableTiming
        return self._call(self._api.cudaEventCreateWithFlags, flags)

    def destroy_event(self, event: Any) -> None:
        self._call(self._api.cudaEventDestroy, event)

    def record(self, event: Any, stream: Any) -> None:
        self._call(self._api.cudaEventRecord, event, stream)

    def wait(self, event: Any) -> None:
        self._call(self._api.cudaEventSynchronize, event)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call(self._api.cudaEventElapsedTime, start, end))

    def order_after(self, stream: Any, other: int) -> None:
        event = self.new_event(timing=False)
        try:
            self._call(self._api.cudaEventRecord, event, self._api.cudaStream_t(other))
            self._call(self._api.cudaStreamWaitEvent, stream, event, 0)
        finally:
            self.destroy_event(event)  # CUDA keeps it until the wait is over

    def upload(self, pointer: int, array: HostBytes, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(
            self._api.cudaMemcpyAsync, pointer, array.ctypes.data, array.nbytes, kind, stream
        )

    def download(self, array: HostBytes, pointer: int, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(
            self._api.cudaMemcpyAsync, array.ctypes.data, pointer, array.nbytes, kind, stream
        )

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call(self._api.cudaMemcpyAsync, target, source, size, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        # other threads may allocate meanwhile
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._api.cudaStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Any) -> Any:
        graph = self._call(self._api.cudaStreamEndCapture, stream)
        try:
            return self._call(self._api.cudaGraphInstantiate, graph, 0)
        finally:
            self._call(self._api.cudaGraphDestroy, graph)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call(self._api.cudaGraphLaunch, graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call(self._api.cudaGraphExecDestroy, graph)
