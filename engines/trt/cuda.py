"""The little of CUDA that the runtime needs, as a protocol, and the choice of who provides it.

``cuda-python`` is preferred: it has graphs. PyCUDA is accepted in its place, for Jetsons and
machines where it is already there; stages are then launched one by one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dyninfer.errors import BackendUnavailable, EngineRunError

HostBytes = npt.NDArray[np.uint8]

ALIGNMENT = 256
"""Of every address that TensorRT is given, in bytes (``IExecutionContext::setTensorAddress``)."""
NO_GRAPHS = "PyCUDA has no graphs; pip install cuda-python for them"


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU and its driver say of themselves.

    ``driver`` is the highest CUDA version that the driver supports, for example ``"12.8"``.
    """

    name: str
    compute_capability: tuple[int, int]
    driver: str

    @property
    def capability(self) -> str:
        """The compute capability as NVIDIA writes it: "8.6"."""
        major, minor = self.compute_capability
        return f"{major}.{minor}"


def dotted(version: int) -> str:
    """A driver's version, 1000 * major + 10 * minor, as NVIDIA writes it."""
    return f"{version // 1000}.{version % 1000 // 10}"


def first_line(error: Exception) -> str:
    """What an error says, without what follows in further lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Cuda(Protocol):
    """One GPU. Streams, events and graphs are opaque; pointers are whole numbers.

    Every call but those for host memory's contents must happen inside :meth:`active`. All copies
    are asynchronous and ordered by their stream. Host arrays are C-contiguous bytes.

    Raises:
        EngineRunError: any call that CUDA refuses, with CUDA's own name for the reason.
    """

    package: str
    device: int
    has_graphs: bool
    properties: DeviceProperties

    def _check_number(self, count: int) -> None:
        """Refuse a number that none of the machine's GPUs has."""
        if not 0 <= self.device < count:
            raise BackendUnavailable(
                f"device 'cuda:{self.device}' is not there; this machine has {count} GPUs, from "
                "'cuda:0'"
            )

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU the calling thread's current one, and put the former one back after."""

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes, aligned to at least 256."""

    def free(self, pointer: int) -> None:
        """Free device memory that no work under way uses."""

    def allocate_host(self, size: int) -> HostBytes:
        """Page-locked host memory, which copies reach without a detour."""

    def free_host(self, array: HostBytes) -> None:
        """Free what :meth:`allocate_host` gave; no view of it may be used afterwards."""

    def new_stream(self) -> Any:
        """A stream that does not wait for the default one."""

    def destroy_stream(self, stream: Any) -> None:
        """Free a stream whose work is done."""

    def handle(self, stream: Any) -> int:
        """The stream as the number that TensorRT takes."""

    def synchronize(self, stream: Any) -> None:
        """Let the host wait for everything that was enqueued."""

    def new_event(self, *, timing: bool) -> Any:
        """A point in a stream's work; with ``timing`` the time between two can be asked for."""

    def destroy_event(self, event: Any) -> None:
        """Free an event."""

    def record(self, event: Any, stream: Any) -> None:
        """Move the event to the end of what is enqueued now."""

    def wait(self, event: Any) -> None:
        """Let the host wait until the work before the event is done."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have both happened."""

    def order_after(self, stream: Any, other: int) -> None:
        """Let ``stream`` wait for what is enqueued on another library's stream, by its handle."""

    def upload(self, pointer: int, array: HostBytes, stream: Any) -> None:
        """Copy page-locked host memory to the device."""

    def download(self, array: HostBytes, pointer: int, stream: Any) -> None:
        """Copy device memory to page-locked host memory."""

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy ``size`` bytes within the device."""

    def begin_capture(self, stream: Any) -> None:
        """Collect what this thread enqueues on the stream from now on instead of running it."""
        raise EngineRunError(NO_GRAPHS)

    def end_capture(self, stream: Any) -> Any:
        """What was collected, as a graph that is ready to launch."""
        raise EngineRunError(NO_GRAPHS)

    def launch(self, graph: Any, stream: Any) -> None:
        """Enqueue a graph."""
        raise EngineRunError(NO_GRAPHS)

    def destroy_graph(self, graph: Any) -> None:
        """Free a graph that is not running."""
        raise EngineRunError(NO_GRAPHS)


def open_cuda(device: int) -> Cuda:
    """The GPU with this number, through cuda-python or else PyCUDA.

    Raises:
        BackendUnavailable: neither is installed, there is no driver, or no such GPU.
    """
    from dyninfer.engines.trt.cuda_python import CudaPython, import_runtime

    runtime = import_runtime()
    if runtime is not None:
        return CudaPython(device, runtime)
    from dyninfer.engines.trt.pycuda_driver import PyCuda, import_driver

    driver = import_driver()
    if driver is not None:
        return PyCuda(device, driver)
    raise BackendUnavailable(
        "neither cuda-python nor pycuda can be imported; install one with pip install cuda-python"
    )
