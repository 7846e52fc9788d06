"""CUDA through PyCUDA (``pycuda.driver``), accepted where cuda-python is not installed.

PyCUDA has no graphs and cannot take another library's stream.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from dyninfer.engines.trt.cuda import (
    Active,
    Copies,
    Cuda,
    DeviceProperties,
    HostBytes,
    first_line,
)
from dyninfer.engines.trt.cuda_api import (
    DeviceAllocation,
    PagelockedHostAllocation,
    PyCudaDriver,
)
from dyninfer.engines.trt.lost import advised
from dyninfer.errors import BackendUnavailable, EngineRunError

MODULE = "pycuda.driver"
ResultT = TypeVar("ResultT")


def import_driver() -> PyCudaDriver | None:
    """PyCUDA's driver module, or None where PyCUDA is not installed or cannot load libcuda."""
    try:
        return cast(PyCudaDriver, importlib.import_module(MODULE))
    except ImportError:
        return None


class PyCuda(Cuda):
    """One GPU through CUDA's driver API: all that :class:`Cuda` does, but graphs.

    Works in the GPU's primary context, which is the one that TensorRT uses. PyCUDA frees what
    nobody refers to any more, and only where its context is current: that is why this class holds
    every allocation and lets go of it inside :meth:`active`.

    Raises:
        BackendUnavailable: there is no driver, or no such GPU.
    """

    package = "pycuda"
    has_graphs = False

    def __init__(self, device: int, driver: PyCudaDriver) -> None:
        self._driver = driver
        self.device = device
        try:
            driver.init()
            count = driver.Device.count()
        except driver.Error as error:
            raise BackendUnavailable(
                f"no GPU can be used ({first_line(error)}); install or update the NVIDIA driver"
            ) from error
        self._check_number(count)
        gpu = driver.Device(device)
        self._context = gpu.retain_primary_context()
        # PyCUDA ends the process when a thread ends whose stack of contexts is not empty
        self._active = Active(self._context.push, driver.Context.pop)
        self._allocations: dict[int, DeviceAllocation] = {}
        self.properties = DeviceProperties(
            name=str(gpu.name()),
            compute_capability=gpu.compute_capability(),
            multiprocessors=int(gpu.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT)),
            memory_bytes=int(gpu.total_memory()),
        )

    def _ask(self, what: str, function: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Call a function of the API, which is called ``what`` in the error."""
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise EngineRunError(advised(f"CUDA failed in {what}: {first_line(error)}")) from error

    def allocate(self, size: int) -> int:
        allocation = self._ask("mem_alloc", self._driver.mem_alloc, size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, pointer: int) -> None:
        self._ask("DeviceAllocation.free", self._allocations.pop(pointer).free)

    def allocate_host(self, size: int) -> HostBytes:
        return self._ask("pagelocked_empty", self._driver.pagelocked_empty, size, np.uint8)

    def free_host(self, array: HostBytes) -> None:
        allocation = cast(PagelockedHostAllocation, array.base)
        self._ask("PagelockedHostAllocation.free", allocation.free)

    def new_stream(self) -> Any:
        return self._ask("Stream", self._driver.Stream, 1)  # CU_STREAM_NON_BLOCKING

    def destroy_stream(self, stream: Any) -> None:
        self.synchronize(stream)  # PyCUDA frees it with its last reference

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        self._ask("Stream.synchronize", stream.synchronize)

    def new_event(self, *, timing: bool) -> Any:
        flags = self._driver.event_flags
        flag = flags.DEFAULT if timing else flags.DISABLE_TIMING
        return self._ask("Event", self._driver.Event, flag)

    def destroy_event(self, event: Any) -> None:
        self.wait(event)  # PyCUDA frees it with its last reference

    def record(self, event: Any, stream: Any) -> None:
        self._ask("Event.record", event.record, stream)

    def wait(self, event: Any) -> None:
        self._ask("Event.synchronize", event.synchronize)

    def happened(self, event: Any) -> bool:
        return bool(self._ask("Event.query", event.query))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._ask("Event.time_till", start.time_till, end))

    def order(self, stream: Any, event: Any) -> None:
        self._ask("Stream.wait_for_event", stream.wait_for_event, event)

    def order_after(self, stream: Any, other: int) -> None:  # noqa: ARG002  # see below
        # the host waits for everything: PyCUDA cannot take another library's stream
        self._ask("Context.synchronize", self._driver.Context.synchronize)

    def upload(self, pointer: int, array: HostBytes, stream: Any) -> None:
        self._ask("memcpy_htod_async", self._driver.memcpy_htod_async, pointer, array, stream)

    def copy_all(self, copies: Copies, stream: Any) -> None:
        copy = self._driver.memcpy_dtod_async
        for target, source, size in copies:
            self._ask("memcpy_dtod_async", copy, target, source, size, stream)

    def download(self, copies: Copies, stream: Any) -> None:
        copy = self._driver.memcpy_dtoh_async
        for target, source, size in copies:
            memory = (ctypes.c_uint8 * size).from_address(target)
            self._ask("memcpy_dtoh_async", copy, np.ctypeslib.as_array(memory), source, stream)

    def begin_capture(self, stream: Any) -> None:  # noqa: ARG002
        raise EngineRunError("PyCUDA has no graphs; pip install cuda-python for them")
