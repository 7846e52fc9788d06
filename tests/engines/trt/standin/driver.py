"""``pycuda.driver``, as far as it is used: what nobody refers to any more is freed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.engines.trt.standin import machine as simulated
from tests.engines.trt.standin.machine import CudaFailure, Machine, Misuse


class FakeDriver:
    """Contexts are a stack in every thread; the one on top says which GPU is current."""

    class Error(Exception):
        pass

    event_flags = SimpleNamespace(DEFAULT=0, DISABLE_TIMING=2)
    device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="multiprocessors")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._started = False
        self.stacks: list[list[Any]] = []
        driver = self

        class Context:
            def __init__(self, device: int) -> None:
                self.device = device

            def push(self) -> None:
                driver._stack().append(self)
                machine.local.device = self.device

            @staticmethod
            def pop() -> None:
                stack = driver._stack()
                if not stack:
                    raise Misuse("pop of an empty stack of contexts")
                stack.pop()
                machine.local.device = stack[-1].device if stack else -1

            @staticmethod
            def synchronize() -> None:
                driver._in_context()
                machine.synchronize_all()

        class Device:
            def __init__(self, number: int) -> None:
                self.number = number

            @staticmethod
            def count() -> int:
                driver._call("cuDeviceGetCount", started=True)
                return machine.gpus

            def name(self) -> str:
                return f"Stand-in GPU {self.number}"

            def compute_capability(self) -> tuple[int, int]:
                return 8, 6

            def get_attribute(self, attr: str) -> int:
                return {"multiprocessors": 46}[attr]

            def total_memory(self) -> int:
                return (8 << 30) - (150 << 20)

            def retain_primary_context(self) -> Context:
                return Context(self.number)

        self.Context = Context
        self.Device = Device

    def _stack(self) -> list[Any]:
        local = self._machine.local
        if not hasattr(local, "stack"):
            local.stack = []
            local.device = -1
            self.stacks.append(local.stack)
        return local.stack

    def _in_context(self) -> None:
        if not self._stack():
            raise Misuse("no CUDA context is current in this thread")

    def _call(self, name: str, *, started: bool = False) -> None:
        if started and not self._started:
            raise Misuse("pycuda.driver.init was not called")
        try:
            self._machine.called(name)
        except CudaFailure as failure:
            raise self.Error(str(failure)) from None

    def init(self) -> None:
        self._call("cuInit")
        self._started = True

    def Stream(self, flags: int) -> Any:
        assert flags == 1
        self._in_context()
        return FakeStream(self)

    def Event(self, flags: int) -> Any:
        self._in_context()
        return FakeEvent(self._machine, timing=flags == 0)

    def mem_alloc(self, size: int) -> Any:
        self._in_context()
        try:
            return DeviceAllocation(self._machine, self._machine.allocate(size))
        except CudaFailure as failure:
            raise self.Error(f"cuMemAlloc failed: {failure}") from None

    def pagelocked_empty(self, shape: int, dtype: Any) -> np.ndarray:
        self._in_context()
        assert dtype is np.uint8
        memory = self._machine.allocate_host(shape)
        return np.asarray(PagelockedHostAllocation(self._machine, memory))

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: FakeStream) -> None:
        target = self._machine.device_range(int(dest), src.nbytes, "memcpy_htod_async")
        source = self._machine.host_range(src.ctypes.data, src.nbytes, "memcpy_htod_async")
        self._machine.copy(target, source, stream.handle, "cudaMemcpyHostToDevice")

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: FakeStream) -> None:
        source = self._machine.device_range(int(src), dest.nbytes, "memcpy_dtoh_async")
        target = self._machine.host_range(dest.ctypes.data, dest.nbytes, "memcpy_dtoh_async")
        self._machine.copy(target, source, stream.handle, "cudaMemcpyDeviceToHost")

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: FakeStream) -> None:
        source = self._machine.device_range(int(src), size, "memcpy_dtod_async")
        target = self._machine.device_range(int(dest), size, "memcpy_dtod_async")
        self._machine.copy(target, source, stream.handle, "cudaMemcpyDeviceToDevice")


class DeviceAllocation:
    def __init__(self, machine: Machine, address: int) -> None:
        self._machine, self._address = machine, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._machine.free(self._address, "device")


class PagelockedHostAllocation:
    """The base of the array that ``pagelocked_empty`` gives."""

    def __init__(self, machine: Machine, memory: np.ndarray) -> None:
        self._machine, self._memory = machine, memory
        self.__array_interface__ = memory.__array_interface__

    def free(self) -> None:
        self._machine.free(self._memory.ctypes.data, "host")


class FakeStream:
    """Destroyed with its last reference, as PyCUDA does; its context must be current then."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver, self._machine = driver, driver._machine
        self.handle = self._machine.new_stream().handle

    def synchronize(self) -> None:
        self._driver._call("cuStreamSynchronize")
        self._machine.synchronize(self.handle)

    def wait_for_event(self, event: FakeEvent) -> None:
        self._machine.stream_wait(self.handle, event._event)

    def __del__(self) -> None:
        self._machine.destroy_stream(self.handle)


class FakeEvent:
    def __init__(self, machine: Machine, timing: bool) -> None:
        self._machine = machine
        self._event: simulated.Event = machine.new_event(timing)

    def record(self, stream: FakeStream) -> FakeEvent:
        self._machine.record(self._event, stream.handle)
        return self

    def synchronize(self) -> FakeEvent:
        self._machine.wait(self._event)
        return self

    def query(self) -> bool:
        return self._machine.happened(self._event)

    def time_till(self, end: FakeEvent) -> float:
        return self._machine.elapsed_ms(self._event, end._event)

    def __del__(self) -> None:
        self._machine.destroy_event(self._event)
