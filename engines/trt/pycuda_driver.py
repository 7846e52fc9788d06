"""CUDA through PyCUDA (``pycuda.driver``), accepted where cuda-python is not installed.

PyCUDA has no graphs and cannot take another library's stream. It was checked against its source,
2026.1, and run against a stand-in; it cannot be built without a CUDA toolkit, so it has never been
imported here, nor run on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import numpy as np

from dyninfer.engines.trt.cuda import DeviceProperties, HostBytes
from dyninfer.engines.trt.cuda_api import (
    DeviceAllocation,
    PagelockedHostAllocation,
    PyCudaDriver,
)
from dyninfer.errors import BackendUnavailable, EngineRunError

MODULE = "pycuda.driver"


def import_driver() -> PyCudaDriver | None:
    """PyCUDA's driver module, or None where PyCUDA is not installed or cannot load libcuda."""
    try:
        return cast(PyCudaDriver, importlib.import_module(MODULE))
    except ImportError:
        return None


class PyCuda:
    """One GPU through CUDA's driver API. See :class:`dyninfer.engines.trt.cuda.Cuda`.

    Works in the GPU's primary context, which is the one that TensorRT uses. PyCUDA frees what
    nobody refers to any more, and only where its context is current: that is why this class holds
    every allocation and lets go of it inside :meth:`active`.

    Args:
        device: number of the GPU.
        driver: the module ``pycuda.driver``.

    Raises:
        BackendUnavailable: there is no driver, or no such GPU.
    """

    package = "pycuda"
    has_graphs = False

    def __init__(self, device: int, driver: PyCudaDriver) -> None:
        self._api = driver
        self.device = device
        try:
            driver.init()
            count = driver.Device.count()
        except driver.Error as error:
            raise BackendUnavailable(
                f"no GPU can be used ({_first_line(error)}); install or update the NVIDIA driver"
            ) from error
        if not 0 <= device < count:
            raise BackendUnavailable(
                f"device 'cuda:{device}' is not there; this machine has {count} GPUs, from 'cuda:0'"
            )
        gpu = driver.Device(device)
        self._context = gpu.retain_primary_context()
        self._allocations: dict[int, DeviceAllocation] = {}
        version = int(driver.get_driver_version())  # 1000 * major + 10 * minor
        self.properties = DeviceProperties(
            name=str(gpu.name()),
            compute_capability=gpu.compute_capability(),
            total_memory=int(gpu.total_memory()),
            driver=f"{version // 1000}.{version % 1000 // 10}",
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        """See :meth:`dyninfer.engines.trt.cuda.Cuda.active`.

        The context is popped again in any case: PyCUDA ends the process when a thread ends whose
        stack of contexts is not empty.
        """
        self._context.push()
        try:
            yield
        finally:
            self._api.Context.pop()

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._api.Error as error:
            raise EngineRunError(f"CUDA failed in {what}: {_first_line(error)}") from error

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes."""
        with self._reporting("mem_alloc"):
            allocation = self._api.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, pointer: int) -> None:
        """Free device memory."""
        with self._reporting("DeviceAllocation.free"):
            self._allocations.pop(pointer).free()

    def allocate_host(self, size: int) -> HostBytes:
        """Page-locked host memory."""
        with self._reporting("pagelocked_empty"):
            return self._api.pagelocked_empty(size, np.uint8)

    def free_host(self, array: HostBytes) -> None:
        """Free page-locked host memory; the array's base is the allocation."""
        allocation = cast(PagelockedHostAllocation, array.base)
        with self._reporting("PagelockedHostAllocation.free"):
            allocation.free()

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one: flag CU_STREAM_NON_BLOCKING."""
        with self._reporting("Stream"):
            return self._api.Stream(1)

    def destroy_stream(self, stream: Any) -> None:
        """Wait for it; PyCUDA frees it with its last reference."""
        self.synchronize(stream)

    def handle(self, stream: Any) -> int:
        """The stream as a number."""
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        """Wait for a stream."""
        with self._reporting("Stream.synchronize"):
            stream.synchronize()

    def new_event(self, *, timing: bool) -> Any:
        """An event; one without timing is cheaper."""
        flags = self._api.event_flags
        with self._reporting("Event"):
            return self._api.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING)

    def destroy_event(self, event: Any) -> None:
        """Wait for it; PyCUDA frees it with its last reference."""
        self.wait(event)

    def record(self, event: Any, stream: Any) -> None:
        """Record an event."""
        with self._reporting("Event.record"):
            event.record(stream)

    def wait(self, event: Any) -> None:
        """Wait for an event."""
        with self._reporting("Event.synchronize"):
            event.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events."""
        with self._reporting("Event.time_till"):
            return float(start.time_till(end))

    def order_after(self, stream: Any, other: int) -> None:  # noqa: ARG002  # see below
        """Let the host wait for everything: PyCUDA cannot take another library's stream."""
        with self._reporting("Context.synchronize"):
            self._api.Context.synchronize()

    def upload(self, pointer: int, array: HostBytes, stream: Any) -> None:
        """Copy to the device."""
        with self._reporting("memcpy_htod_async"):
            self._api.memcpy_htod_async(pointer, array, stream)

    def download(self, array: HostBytes, pointer: int, stream: Any) -> None:
        """Copy to the host."""
        with self._reporting("memcpy_dtoh_async"):
            self._api.memcpy_dtoh_async(array, pointer, stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy within the device."""
        with self._reporting("memcpy_dtod_async"):
            self._api.memcpy_dtod_async(target, source, size, stream)

    def begin_capture(self, stream: Any) -> NoReturn:  # noqa: ARG002  # part of the protocol
        """PyCUDA has no graphs."""
        raise EngineRunError("PyCUDA has no graphs; pip install cuda-python for them")

    def end_capture(self, stream: Any) -> NoReturn:
        """PyCUDA has no graphs."""
        self.begin_capture(stream)

    def launch(self, graph: Any, stream: Any) -> NoReturn:  # noqa: ARG002  # part of the protocol
        """PyCUDA has no graphs."""
        self.begin_capture(stream)

    def destroy_graph(self, graph: Any) -> NoReturn:
        """PyCUDA has no graphs."""
        self.begin_capture(graph)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
