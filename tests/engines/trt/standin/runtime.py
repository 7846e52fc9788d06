"""``cuda.bindings.runtime``, as far as it is used."""

from __future__ import annotations

import functools
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from tests.engines.trt.standin.machine import (
    LEGACY_STREAM,
    CudaFailure,
    Event,
    Graph,
    Machine,
    Misuse,
)


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class MemcpyKind(IntEnum):
    cudaMemcpyDefault = 4


class SrcAccessOrder(IntEnum):
    cudaMemcpySrcAccessOrderInvalid = 0
    cudaMemcpySrcAccessOrderStream = 1


class MemcpyAttributes:
    srcAccessOrder = SrcAccessOrder.cudaMemcpySrcAccessOrderInvalid


class CaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class Handle:
    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


def answers(function):
    """Results as the bindings give them: a code first, and None beside a failure."""

    @functools.wraps(function)
    def call(self: FakeRuntime, *arguments: Any) -> tuple[Any, ...]:
        try:
            if not function.__name__.startswith(("cudaStreamEndCapture", "cudaGraphInstantiate")):
                self._machine.called(function.__name__)
            results = function(self, *arguments)
        except CudaFailure as failure:
            return Error[str(failure)], None
        if results is None:
            return (Error.cudaSuccess,)
        return Error.cudaSuccess, results

    return call


class FakeRuntime:
    """A module is only names; an object with them does as well."""

    cudaError_t = Error
    cudaMemcpyKind = MemcpyKind
    cudaMemcpySrcAccessOrder = SrcAccessOrder
    cudaMemcpyAttributes = MemcpyAttributes
    cudaStreamCaptureMode = CaptureMode
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    cudaEventDisableTiming = 2
    cudaStream_t = Handle

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @answers
    def cudaGetDeviceCount(self) -> int:
        if not self._machine.gpus:
            raise CudaFailure("cudaErrorNoDevice")
        return self._machine.gpus

    @answers
    def cudaGetDeviceProperties(self, device: int) -> Any:
        name = f"Stand-in GPU {device}".encode()
        return SimpleNamespace(
            name=name + b"\0" * (256 - len(name)),
            major=8,
            minor=6,
            multiProcessorCount=46,
            totalGlobalMem=(8 << 30) - (150 << 20),  # what a driver leaves of 8 GiB
        )

    @answers
    def cudaDriverGetVersion(self) -> int:
        return self._machine.driver_version

    @answers
    def cudaMalloc(self, size: int) -> int:
        return self._machine.allocate(size)

    @answers
    def cudaFree(self, devPtr: int) -> None:
        self._machine.free(devPtr, "device")

    @answers
    def cudaHostAlloc(self, size: int, flags: int) -> int:
        assert flags == self.cudaHostAllocDefault
        return self._machine.allocate_host(size).ctypes.data

    @answers
    def cudaFreeHost(self, ptr: int) -> None:
        self._machine.free(ptr, "host")

    @answers
    def cudaStreamCreateWithFlags(self, flags: int) -> Handle:
        assert flags == self.cudaStreamNonBlocking
        return Handle(self._machine.new_stream().handle)

    @answers
    def cudaStreamDestroy(self, stream: Handle) -> None:
        self._machine.destroy_stream(int(stream))

    @answers
    def cudaStreamSynchronize(self, stream: Handle) -> None:
        self._machine.synchronize(int(stream))

    @answers
    def cudaStreamWaitEvent(self, stream: Handle, event: Event, flags: int) -> None:
        assert flags == 0
        self._machine.stream_wait(int(stream), event)

    @answers
    def cudaEventCreateWithFlags(self, flags: int) -> Event:
        return self._machine.new_event(timing=flags == self.cudaEventDefault)

    @answers
    def cudaEventDestroy(self, event: Event) -> None:
        self._machine.destroy_event(event)

    @answers
    def cudaEventRecord(self, event: Event, stream: Handle) -> None:
        assert int(stream) != LEGACY_STREAM, "the stand-in has no work on the default stream"
        self._machine.record(event, int(stream))

    @answers
    def cudaEventQuery(self, event: Event) -> None:
        if not self._machine.happened(event):
            raise CudaFailure("cudaErrorNotReady")

    @answers
    def cudaEventSynchronize(self, event: Event) -> None:
        self._machine.wait(event)

    @answers
    def cudaEventElapsedTime(self, start: Event, end: Event) -> float:
        return self._machine.elapsed_ms(start, end)

    @answers
    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Handle) -> None:
        assert kind is MemcpyKind.cudaMemcpyDefault
        self._copy(dst, src, count, stream)

    @answers
    def cudaMemcpyBatchAsync(
        self,
        dsts: list[int],
        srcs: list[int],
        sizes: list[int],
        count: int,
        attrs: list[Any],
        attrsIdxs: list[int],
        numAttrs: int,
        stream: Handle,
    ) -> None:
        assert self._machine.driver_version >= 12080
        assert len(dsts) == len(srcs) == len(sizes) == count
        assert len(attrs) == len(attrsIdxs) == numAttrs == 1
        assert attrsIdxs == [0]
        assert attrs[0].srcAccessOrder is SrcAccessOrder.cudaMemcpySrcAccessOrderStream
        for dst, src, size in zip(dsts, srcs, sizes, strict=True):
            self._copy(dst, src, size, stream)

    def _copy(self, dst: int, src: int, count: int, stream: Handle) -> None:
        """Where the addresses are says what kind of a copy it is, as in a unified address space."""
        machine = self._machine
        on_device = machine.device_room(dst) > 0, machine.device_room(src) > 0
        name = "cudaMemcpy" + "To".join("Device" if here else "Host" for here in on_device[::-1])
        target = (machine.device_range if on_device[0] else machine.host_range)(dst, count, name)
        source = (machine.device_range if on_device[1] else machine.host_range)(src, count, name)
        machine.copy(target, source, int(stream), name)

    @answers
    def cudaStreamBeginCapture(self, stream: Handle, mode: Any) -> None:
        assert mode is CaptureMode.cudaStreamCaptureModeThreadLocal
        self._machine.begin_capture(int(stream))

    @answers
    def cudaStreamEndCapture(self, stream: Handle) -> Graph:
        return self._machine.end_capture(int(stream))

    @answers
    def cudaGraphInstantiate(self, graph: Graph, flags: int) -> Graph:
        assert flags == 0
        return self._machine.instantiate(graph)

    @answers
    def cudaGraphLaunch(self, graphExec: Graph, stream: Handle) -> None:
        self._machine.launch(graphExec, int(stream))

    @answers
    def cudaGraphDestroy(self, graph: Graph) -> None:
        assert not graph.executable
        self._machine.destroy_graph(graph)

    @answers
    def cudaGraphExecDestroy(self, graphExec: Graph) -> None:
        assert graphExec.executable
        self._machine.destroy_graph(graphExec)


class Result(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


class FakeContexts:
    """``cuda.bindings.driver``, as far as it is used: every thread's stack of contexts."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._started = False

    def _stack(self) -> list[int]:
        local = self._machine.local
        if not hasattr(local, "stack"):
            local.stack = [self._machine.current]
        return local.stack

    def _answer(self, name: str, result: Any = None) -> tuple[Any, ...]:
        self._machine.calls[name] += 1
        if name != "cuInit" and not self._started:
            raise Misuse(f"{name} before cuInit")
        if failure := self._machine.failures.get(name):
            return Result[failure], None
        return (Result.CUDA_SUCCESS,) if result is None else (Result.CUDA_SUCCESS, result)

    def cuInit(self, Flags: int) -> Any:
        assert Flags == 0
        self._started = True
        return self._answer("cuInit")

    def cuDeviceGet(self, ordinal: int) -> Any:
        return self._answer("cuDeviceGet", ordinal)

    def cuDevicePrimaryCtxRetain(self, dev: int) -> Any:
        self._machine.contexts.add(dev)
        return self._answer("cuDevicePrimaryCtxRetain", ("primary context", dev))

    def cuCtxPushCurrent(self, ctx: Any) -> Any:
        answer = self._answer("cuCtxPushCurrent")
        if not answer[0]:
            self._stack().append(ctx[1])
            self._machine.local.device = ctx[1]
        return answer

    def cuCtxPopCurrent(self) -> Any:
        stack = self._stack()
        if len(stack) < 2:
            raise Misuse("more contexts were popped than pushed")
        popped = stack.pop()
        self._machine.local.device = stack[-1]
        return self._answer("cuCtxPopCurrent", ("primary context", popped))
