"""The little of CUDA that the runtime needs, and the choice of who provides it.

cuda-python, NVIDIA's own bindings, is preferred: it has graphs. PyCUDA is accepted in its place,
for Jetsons and machines where it is already there; stages are then launched one by one.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dyninfer.engines.deadline import Deadline
from dyninfer.engines.trt.cuda_api import CudaDeviceProp, CudaDriver, CudaRuntime, Result
from dyninfer.engines.trt.lost import advised
from dyninfer.errors import BackendUnavailable, DeadlineError, EngineRunError

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""Where the runtime API is: today's place, and that of cuda-python before 12.6."""
DRIVER_MODULES = {"cuda.bindings.runtime": "cuda.bindings.driver", "cuda.cudart": "cuda.cuda"}
"""Where the driver API is that belongs to it."""
FIRST_BATCHES = 12080
"""The first CUDA whose driver takes copies by the batch (``cudaMemcpyBatchAsync``), 12.8."""
HostBytes = npt.NDArray[np.uint8]
Copies = Sequence[tuple[int, int, int]]
"""(target, source, bytes) of copies that do not depend on each other."""

POLL_S = 1e-4
"""Between two looks at what is waited for no longer than a deadline."""
ALIGNMENT = 256
"""Of every address that TensorRT is given, in bytes (``IExecutionContext::setTensorAddress``)."""


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU says of itself."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int

    @property
    def memory_gib(self) -> int:
        """Its memory in whole GiB: drivers keep more or less of it for themselves."""
        return round(self.memory_bytes / 2**30)

    @property
    def capability(self) -> str:
        """The compute capability as NVIDIA writes it: "8.6"."""
        major, minor = self.compute_capability
        return f"{major}.{minor}"


def first_line(error: Exception) -> str:
    """What an error says, without what follows in further lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def import_runtime() -> CudaRuntime | None:
    """The module with CUDA's runtime API, or None where cuda-python is not installed."""
    for name in MODULES:
        try:
            return cast(CudaRuntime, importlib.import_module(name))
        except ImportError:
            continue
    return None


def import_driver_of(runtime: Any) -> CudaDriver:
    """The module with CUDA's driver API that belongs to that of the runtime API."""
    return cast(CudaDriver, importlib.import_module(DRIVER_MODULES[runtime.__name__]))


class _Depth(threading.local):
    value = 0


class Active:
    """Makes a GPU the calling thread's current one, and puts the former one back after.

    May be entered again within itself, which calls nothing.
    """

    __slots__ = ("_depth", "_pop", "_push")

    def __init__(self, push: Callable[[], object], pop: Callable[[], object]) -> None:
        self._push, self._pop = push, pop
        self._depth = _Depth()

    def __enter__(self) -> None:
        depth = self._depth
        if not depth.value:
            self._push()
        depth.value += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        depth = self._depth
        depth.value -= 1
        if depth.value:
            return
        try:
            self._pop()
        except EngineRunError:
            if kind is None:  # or it would hide what went wrong before
                raise


class Cuda:
    """One GPU. Streams, events and graphs are opaque; pointers are whole numbers.

    Every call but those for host memory's contents must happen inside :meth:`active`. All copies
    are asynchronous and ordered by their stream. Host arrays are C-contiguous bytes.

    Raises:
        BackendUnavailable: there is no driver, it is too old, or there is no such GPU.
        EngineRunError: any call that CUDA refuses, with CUDA's own name for the reason.
    """

    package = "cuda-python"
    has_graphs = True

    def __init__(self, device: int, runtime: CudaRuntime, driver: CudaDriver) -> None:
        self._api, self._contexts = runtime, driver
        self.device = device
        self._context: Any = None
        self._active = Active(self._push, self._pop)
        try:
            count = self._call(self._api.cudaGetDeviceCount)
            version = int(self._call(self._api.cudaDriverGetVersion))
        except EngineRunError as error:
            raise BackendUnavailable(
                f"no GPU can be used ({error}); install or update the NVIDIA driver"
            ) from error
        self._check_number(count)
        self._kind = runtime.cudaMemcpyKind.cudaMemcpyDefault  # addresses tell host from device
        copy_batch = getattr(runtime, "cudaMemcpyBatchAsync", None)  # cuda-python before 12.8 lacks
        self._copy_batch = copy_batch if version >= FIRST_BATCHES else None
        found: CudaDeviceProp = self._call(self._api.cudaGetDeviceProperties, device)
        self.properties = DeviceProperties(
            name=found.name.split(b"\0")[0].decode(),
            compute_capability=(int(found.major), int(found.minor)),
            multiprocessors=int(found.multiProcessorCount),
            memory_bytes=int(found.totalGlobalMem),
        )

    def _check_number(self, count: int) -> None:
        """Refuse a number that none of the machine's GPUs has."""
        if not 0 <= self.device < count:
            raise BackendUnavailable(
                f"device 'cuda:{self.device}' is not there; this machine has {count} GPUs, from "
                "'cuda:0'"
            )

    def _call(self, function: Callable[..., Result], *arguments: Any, besides: Any = None) -> Any:
        """Call a function of the API and check its first result, an error code.

        ``besides`` is a code that is returned, and no error.

        Without a driver the bindings answer in two ways: most functions return a code, those
        that load a library first raise RuntimeError (``DynamicLibNotFoundError``).
        """
        try:
            code, *results = function(*arguments)
        except RuntimeError as error:
            raise EngineRunError(
                f"CUDA failed in {function.__name__}: {first_line(error)}"
            ) from error
        if code and code != besides:  # a success is 0
            raise EngineRunError(
                advised(f"CUDA failed in {function.__name__}: {code.name} ({int(code)})", int(code))
            )
        if besides is not None:
            return code
        return results[0] if len(results) == 1 else results

    def active(self) -> Active:
        """A context in which the GPU is the calling thread's current one; see :class:`Active`.

        Its primary context, which TensorRT and the runtime API use as well, is pushed and popped:
        ``cudaSetDevice`` would put a former GPU back by making a context on it, which takes some
        hundred MB of a GPU that nobody asked for.
        """
        return self._active

    def _push(self) -> None:
        if self._context is None:  # two threads at once would only count it twice
            self._call(self._contexts.cuInit, 0)
            device = self._call(self._contexts.cuDeviceGet, self.device)
            self._context = self._call(self._contexts.cuDevicePrimaryCtxRetain, device)
        self._call(self._contexts.cuCtxPushCurrent, self._context)

    def _pop(self) -> None:
        self._call(self._contexts.cuCtxPopCurrent)

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes, aligned to at least 256."""
        return int(self._call(self._api.cudaMalloc, size))

    def free(self, pointer: int) -> None:
        """Free device memory that no work under way uses."""
        self._call(self._api.cudaFree, pointer)

    def allocate_host(self, size: int) -> HostBytes:
        """Page-locked host memory, which copies reach without a detour."""
        pointer = int(self._call(self._api.cudaHostAlloc, size, self._api.cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def free_host(self, array: HostBytes) -> None:
        """Free what :meth:`allocate_host` gave; no view of it may be used afterwards."""
        self._call(self._api.cudaFreeHost, array.ctypes.data)

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        return self._call(self._api.cudaStreamCreateWithFlags, self._api.cudaStreamNonBlocking)

    def destroy_stream(self, stream: Any) -> None:
        """Free a stream whose work is done."""
        self._call(self._api.cudaStreamDestroy, stream)

    def handle(self, stream: Any) -> int:
        """The stream as the number that TensorRT takes."""
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        """Let the host wait for everything that was enqueued."""
        self._call(self._api.cudaStreamSynchronize, stream)

    def new_event(self, *, timing: bool) -> Any:
        """A point in a stream's work; with ``timing`` the time between two can be asked for."""
        api = self._api
        flags = api.cudaEventDefault if timing else api.cudaEventDisableTiming
        return self._call(api.cudaEventCreateWithFlags, flags)

    def destroy_event(self, event: Any) -> None:
        """Free an event."""
        self._call(self._api.cudaEventDestroy, event)

    def record(self, event: Any, stream: Any) -> None:
        """Move the event to the end of what is enqueued now."""
        self._call(self._api.cudaEventRecord, event, stream)

    def wait(self, event: Any) -> None:
        """Let the host wait until the work before the event is done."""
        self._call(self._api.cudaEventSynchronize, event)

    def happened(self, event: Any) -> bool:
        """Whether the work before the event is done; nobody waits for it."""
        not_ready = self._api.cudaError_t.cudaErrorNotReady
        return bool(self._call(self._api.cudaEventQuery, event, besides=not_ready) != not_ready)

    def wait_until(self, event: Any, deadline: Deadline) -> None:
        """Let the host wait as :meth:`wait` does, and give up when the deadline comes.

        What begins after it is what answers instead, and may take as long again.

        Raises:
            DeadlineError: the work goes on, and nobody waits for it any longer.
        """
        now = time.monotonic()
        end = deadline.at if now < deadline.at else now + deadline.ms / 1e3
        while not self.happened(event):
            if time.monotonic() >= end:
                deadline.passed = True
                raise DeadlineError(f"the wait for the GPU was given up: {deadline}")
            time.sleep(POLL_S)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have both happened."""
        return float(self._call(self._api.cudaEventElapsedTime, start, end))

    def order(self, stream: Any, event: Any) -> None:
        """Let ``stream`` wait for an event of another stream of ours."""
        self._call(self._api.cudaStreamWaitEvent, stream, event, 0)

    def order_after(self, stream: Any, other: int) -> None:
        """Let ``stream`` wait for what is enqueued on another library's stream, by its handle."""
        event = self.new_event(timing=False)
        try:
            self._call(self._api.cudaEventRecord, event, self._api.cudaStream_t(other))
            self._call(self._api.cudaStreamWaitEvent, stream, event, 0)
        finally:
            self.destroy_event(event)  # CUDA keeps it until the wait is over

    def upload(self, pointer: int, array: HostBytes, stream: Any) -> None:
        """Copy page-locked host memory to the device."""
        source = array.__array_interface__["data"][0]  # ctypes.data takes several times as long
        self.copy_all([(pointer, source, array.nbytes)], stream)

    def download(self, copies: Copies, stream: Any) -> None:
        """Copy device memory to page-locked host memory, as :meth:`copy_all` does."""
        self.copy_all(copies, stream)

    def copy_all(self, copies: Copies, stream: Any) -> None:
        """Copy ranges that do not overlap within the device; in one call, where CUDA has that."""
        if len(copies) == 1 or self._copy_batch is None:
            for target, source, size in copies:
                self._call(self._api.cudaMemcpyAsync, target, source, size, self._kind, stream)
            return
        ordered = self._api.cudaMemcpyAttributes()
        ordered.srcAccessOrder = self._api.cudaMemcpySrcAccessOrder.cudaMemcpySrcAccessOrderStream
        targets, sources, sizes = (list(column) for column in zip(*copies, strict=True))
        count = len(copies)
        self._call(self._copy_batch, targets, sources, sizes, count, [ordered], [0], 1, stream)

    def begin_capture(self, stream: Any) -> None:
        """Collect what this thread enqueues on the stream from now on instead of running it."""
        # other threads may allocate meanwhile
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._api.cudaStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """What was collected, as a graph that is ready to launch."""
        graph = self._call(self._api.cudaStreamEndCapture, stream)
        try:
            return self._call(self._api.cudaGraphInstantiate, graph, 0)
        finally:
            self._call(self._api.cudaGraphDestroy, graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Enqueue a graph."""
        self._call(self._api.cudaGraphLaunch, graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Free a graph that is not running."""
        self._call(self._api.cudaGraphExecDestroy, graph)


def open_cuda(device: int) -> Cuda:
    """The GPU with this number, through cuda-python or else PyCUDA.

    Raises:
        BackendUnavailable: neither is installed, there is no driver, or no such GPU.
    """
    runtime = import_runtime()
    if runtime is not None:
        return Cuda(device, runtime, import_driver_of(runtime))
    from dyninfer.engines.trt.pycuda_driver import PyCuda, import_driver

    driver = import_driver()
    if driver is not None:
        return PyCuda(device, driver)
    raise BackendUnavailable(
        "neither cuda-python nor pycuda can be imported; install one with pip install cuda-python"
    )
