from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ALIGNMENT = 512
FIRST_ADDRESS = 0x7000_0000_0000
GAP = 1 << 16
POISON = 0xFF  # four of them are a NaN in float32, two in float16
LEGACY_STREAM = 1


class Misuse(AssertionError):
    """What would be undefined behaviour, a race or a crash on a real GPU."""


class CudaFailure(Exception):
    """What CUDA itself reports, by the name of its code."""


@dataclass(eq=False)
class Memory:
    address: int
    data: np.ndarray
    kind: str
    device: int
    freed: bool = False

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Range:
    memory: Memory
    start: int
    size: int

    @property
    def view(self) -> np.ndarray:
        if self.memory.freed:
            raise Misuse(f"{self.memory.kind} memory at {self.memory.address:#x} used after free")
        return self.memory.data[self.start : self.start + self.size]

    def overlaps(self, other: Range) -> bool:
        return (
            self.memory is other.memory
            and self.start < other.start + other.size
            and other.start < self.start + self.size
        )


@dataclass(eq=False)
class Operation:
    name: str
    action: Callable[[], None]
    reads: list[Range] = field(default_factory=list)
    writes: list[Range] = field(default_factory=list)
    cost_ms: float = 0.01
    launch_check: Callable[[], None] = lambda: None
    owner: Any = None
    number: int = 0
    digests: list[tuple[Range, bytes]] = field(default_factory=list)

    def copy(self) -> Operation:
        return Operation(
            self.name, self.action, self.reads, self.writes, self.cost_ms, owner=self.owner
        )


@dataclass(eq=False)
class Stream:
    handle: int
    device: int
    alive: bool = True
    pending: list[Operation] = field(default_factory=list)
    capture: list[Operation] | None = None
    capturing_thread: int = 0
    ordered_after: dict[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class Event:
    device: int
    timing: bool
    alive: bool = True
    stream: Stream | None = None
    number: int = 0
    time_ms: float | None = None


@dataclass(eq=False)
class Graph:
    operations: list[Operation]
    device: int
    executable: bool = False
    alive: bool = True


class Machine:
    """Work is done as late as possible, or at once with ``late`` False: both must come out right.

    Whatever is created counts in ``live`` until it is freed, and inside :meth:`steady` nothing
    may be created at all.
    """

    def __init__(
        self,
        gpus: int = 2,
        memory: int = 1 << 30,
        late: bool = True,
        driver_version: int = 13000,
    ) -> None:
        self.gpus = gpus
        self.memory_left = memory
        self.late = late
        self.lock = threading.RLock()
        self.local = threading.local()
        self.driver_version = driver_version
        self.lost = ""
        self.contexts: set[int] = set()  # GPUs on which somebody made the primary context
        self.live: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.hangs: Callable[[Operation], bool] = lambda _: False  # what never ends
        self.clock_ms = 0.0
        self.violations: list[str] = []
        self._device_memory: list[Memory] = []
        self._host_memory: list[Memory] = []
        self._streams: dict[int, Stream] = {}
        self._next_address = FIRST_ADDRESS
        self._next_number = 1
        self._steady = False

    # who calls

    @property
    def current(self) -> int:
        return getattr(self.local, "device", 0)

    def require_current(self, device: int, what: str) -> None:
        if self.current != device:
            raise Misuse(f"{what} belongs to GPU {device}, but GPU {self.current} is current")

    def lose(self, name: str) -> None:
        """A kernel did what it must not: its work ends, and nothing is done any more."""
        self.lost = name
        for stream in self._streams.values():
            stream.pending.clear()

    def called(self, name: str) -> None:
        self.calls[name] += 1
        if self.lost:
            raise CudaFailure(self.lost)
        if name in self.failures:
            raise CudaFailure(self.failures[name])

    @contextmanager
    def steady(self) -> Iterator[None]:
        self._steady = True
        try:
            yield
        finally:
            self._steady = False

    def created(self, what: str) -> None:
        if self._steady:
            raise Misuse(f"a {what} was made in the steady state")
        self.live[what] += 1

    def destroyed(self, what: str) -> None:
        self.live[what] -= 1
        if self.live[what] < 0:
            raise Misuse(f"more {what} freed than made")

    def gone(self, what: str, device: int, owner: int = 0) -> None:
        """An object of the library was freed with its last reference; nobody could catch here."""
        self.live[what] -= 1
        if any(o.owner == owner for s in self._streams.values() for o in s.pending if o.owner):
            self.violations.append(f"{what} freed while it runs")
        if self.current != device:
            self.violations.append(f"{what} freed while GPU {self.current} was current")

    def leaks(self) -> dict[str, int]:
        return {what: count for what, count in self.live.items() if count}

    def _not_capturing(self, what: str) -> None:
        for stream in self._streams.values():
            if stream.capture is not None and stream.capturing_thread == threading.get_ident():
                raise Misuse(f"{what} while this thread captures a graph")

    # memory

    def allocate(self, size: int) -> int:
        with self.lock:
            self._not_capturing("allocation")
            if size <= 0:
                raise Misuse("allocation of nothing gives a null pointer")
            if size > self.memory_left:
                raise CudaFailure("cudaErrorMemoryAllocation")
            self.created("device block")
            self.memory_left -= size
            address = self._next_address
            self._next_address += -(-size // ALIGNMENT) * ALIGNMENT + GAP
            data = np.full(size, POISON, np.uint8)
            self._device_memory.append(Memory(address, data, "device", self.current))
            return address

    def allocate_host(self, size: int) -> np.ndarray:
        with self.lock:
            self._not_capturing("allocation")
            self.created("host block")
            data = np.full(size, POISON, np.uint8)
            self._host_memory.append(Memory(data.ctypes.data, data, "host", self.current))
            return data

    def free(self, address: int, kind: str) -> None:
        with self.lock:
            self._not_capturing("free")
            known = self._device_memory if kind == "device" else self._host_memory
            found = [memory for memory in known if memory.address == address]
            if not found:
                raise Misuse(f"free of {address:#x}, which is no {kind} block")
            memory = found[-1]
            if memory.freed:
                raise Misuse(f"{kind} memory at {address:#x} freed twice")
            self.require_current(memory.device, "memory")
            whole = Range(memory, 0, memory.size)
            for stream in self._streams.values():
                for operation in stream.pending:
                    if any(r.overlaps(whole) for r in (*operation.reads, *operation.writes)):
                        raise Misuse(f"{kind} memory freed while {operation.name} may use it")
            if kind == "device":
                self.memory_left += memory.size
            memory.freed = True
            memory.data[:] = POISON
            self.destroyed(f"{kind} block")

    def device_range(self, address: int, size: int, what: str) -> Range:
        for memory in self._device_memory:
            start = address - memory.address
            if start >= 0 and start + size <= memory.size:
                if memory.freed:
                    raise Misuse(f"{what}: device memory at {address:#x} was freed")
                self.require_current(memory.device, what)
                return Range(memory, start, size)
        raise Misuse(f"{what}: {size} bytes at {address:#x} are not within a device block")

    def device_room(self, address: int) -> int:
        for memory in self._device_memory:
            if memory.address <= address < memory.address + memory.size and not memory.freed:
                return memory.address + memory.size - address
        return 0

    def host_range(self, address: int, size: int, what: str) -> Range:
        for memory in self._host_memory:
            start = address - memory.address
            if start >= 0 and start + size <= memory.size and not memory.freed:
                return Range(memory, start, size)
        raise Misuse(f"{what}: an asynchronous copy of host memory that is not page-locked")

    # streams and events

    def new_stream(self) -> Stream:
        with self.lock:
            self._not_capturing("making a stream")
            self.created("stream")
            self._next_number += 1
            stream = Stream(0x5000 + self._next_number, self.current)
            self._streams[stream.handle] = stream
            return stream

    def stream(self, handle: int) -> Stream:
        stream = self._streams.get(handle)
        if stream is None or not stream.alive:
            raise Misuse(f"stream {handle:#x} does not exist")
        self.require_current(stream.device, "stream")
        return stream

    def destroy_stream(self, handle: int) -> None:
        with self.lock:
            stream = self.stream(handle)
            if stream.pending or stream.capture is not None:
                raise Misuse("a stream was destroyed while it had work")
            stream.alive = False
            del self._streams[handle]
            self.destroyed("stream")

    def synchronize(self, handle: int) -> None:
        with self.lock:
            self._not_capturing("synchronising a stream")
            self._work(self.stream(handle))
            if self.stream(handle).pending:
                raise Misuse("the host waits for ever for a device that hangs")

    def synchronize_all(self) -> None:
        with self.lock:
            self._not_capturing("synchronising")
            for stream in list(self._streams.values()):
                self._work(stream)

    def new_event(self, timing: bool) -> Event:
        with self.lock:
            self.created("event")
            return Event(self.current, timing)

    def _event(self, event: Event) -> Event:
        if not event.alive:
            raise Misuse("an event was used after it was destroyed")
        self.require_current(event.device, "event")
        return event

    def destroy_event(self, event: Event) -> None:
        with self.lock:
            self._event(event).alive = False
            self.destroyed("event")

    def record(self, event: Event, handle: int) -> None:
        with self.lock:
            stream = self.stream(handle)
            if stream.capture is not None:
                raise Misuse("an event was recorded into a capture and would not happen")
            self._event(event).stream = stream
            event.time_ms = None

            def happen() -> None:
                event.time_ms = self.clock_ms

            operation = Operation("event", happen, cost_ms=0)
            self._enqueue(stream, operation)
            event.number = operation.number

    def wait(self, event: Event) -> None:
        if not self.happened(event):
            raise Misuse("the host waits for ever for a device that hangs")

    def happened(self, event: Event) -> bool:
        with self.lock:
            self._not_capturing("waiting for an event")
            if self._event(event).stream is None:
                raise Misuse("waiting for an event that was never recorded")
            self._work(event.stream, event.number)
            pending = event.stream.pending
            return not pending or pending[0].number > event.number

    def elapsed_ms(self, start: Event, end: Event) -> float:
        with self.lock:
            for event in (start, end):
                if not self._event(event).timing:
                    raise Misuse("the time of an event without timing")
                if event.time_ms is None:
                    raise Misuse("the time of an event that has not happened yet")
            return end.time_ms - start.time_ms

    def stream_wait(self, handle: int, event: Event) -> None:
        with self.lock:
            stream = self.stream(handle)
            if self._event(event).stream is None:
                raise Misuse("a stream waits for an event that was never recorded")
            other, number = event.stream, event.number
            stream.ordered_after[other.handle] = number
            self._enqueue(stream, Operation("wait", lambda: self._work(other, number)))

    # work

    def enqueue(self, handle: int, operation: Operation) -> None:
        with self.lock:
            stream = self.stream(handle)
            if stream.capture is not None:
                if stream.capturing_thread != threading.get_ident():
                    raise Misuse("work from another thread went into a capture")
                stream.capture.append(operation)
                return
            self._enqueue(stream, operation)

    def _enqueue(self, stream: Stream, operation: Operation) -> None:
        if self.lost:
            return
        self._check_races(stream, operation)
        operation.number = self._next_number = self._next_number + 1
        operation.digests = [
            (used, used.view.tobytes()) for used in operation.reads if used.memory.kind == "host"
        ]
        for used in operation.writes:
            if used.memory.kind == "host":
                used.view[:] = POISON  # whoever reads before the copy is over sees it
        stream.pending.append(operation)
        if not self.late:
            self._work(stream)

    def _check_races(self, stream: Stream, operation: Operation) -> None:
        for other in self._streams.values():
            if other is stream:
                continue
            for pending in other.pending:
                if pending.number <= stream.ordered_after.get(other.handle, 0):
                    continue
                if operation.owner is not None and pending.owner == operation.owner:
                    raise Misuse("one execution context runs on two streams at once")
                conflicts = [
                    *((a, b) for a in operation.writes for b in (*pending.reads, *pending.writes)),
                    *((a, b) for a in operation.reads for b in pending.writes),
                ]
                if any(a.overlaps(b) for a, b in conflicts):
                    raise Misuse(f"{operation.name} races with {pending.name} on another stream")

    def _work(self, stream: Stream, until: int | None = None) -> None:
        while stream.pending and (until is None or stream.pending[0].number <= until):
            if self.hangs(stream.pending[0]):
                return
            operation = stream.pending.pop(0)
            for used, digest in operation.digests:
                if used.view.tobytes() != digest:
                    raise Misuse(f"host memory was changed before {operation.name} had read it")
            for used in (*operation.reads, *operation.writes):
                _ = used.view  # raises where it was freed
            self.clock_ms += operation.cost_ms
            operation.action()

    def copy(self, target: Range, source: Range, handle: int, kind: str) -> None:
        if target.size != source.size:
            raise Misuse("a copy between different sizes")
        if target.overlaps(source):
            raise Misuse("a copy onto itself")

        def move() -> None:
            target.view[:] = source.view

        self.calls[kind] += 1
        self.enqueue(handle, Operation(kind, move, [source], [target]))

    # graphs

    def begin_capture(self, handle: int) -> None:
        with self.lock:
            stream = self.stream(handle)
            if stream.capture is not None:
                raise Misuse("a stream captures already")
            stream.capture, stream.capturing_thread = [], threading.get_ident()

    def capturing(self, handle: int) -> bool:
        return self.stream(handle).capture is not None

    def end_capture(self, handle: int) -> Graph:
        with self.lock:
            stream = self.stream(handle)
            if stream.capture is None:
                raise Misuse("a stream does not capture")
            operations, stream.capture = stream.capture, None
            self.called("cudaStreamEndCapture")
            self.created("graph")
            return Graph(operations, stream.device)

    def instantiate(self, graph: Graph) -> Graph:
        with self.lock:
            self.called("cudaGraphInstantiate")
            self.created("executable graph")
            return Graph(graph.operations, graph.device, executable=True)

    def launch(self, graph: Graph, handle: int) -> None:
        with self.lock:
            if not graph.alive or not graph.executable:
                raise Misuse("a graph was launched that is destroyed or not instantiated")
            if not graph.operations:
                raise Misuse("an empty graph was launched")
            stream = self.stream(handle)
            if stream.capture is not None:
                raise Misuse("a graph was launched into a capture")
            for operation in graph.operations:
                operation.launch_check()
                self._enqueue(stream, operation.copy())

    def destroy_graph(self, graph: Graph) -> None:
        with self.lock:
            if not graph.alive:
                raise Misuse("a graph was destroyed twice")
            graph.alive = False
            self.destroyed("executable graph" if graph.executable else "graph")
