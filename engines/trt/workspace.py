"""Everything that one caller at a time needs on the GPU: streams, buffers, contexts, clocks."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import TensorSpec
from dyninfer.engines.base import HostRead
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.engines.trt.lanes import Lanes
from dyninfer.engines.trt.layout import aligned, lay_out
from dyninfer.engines.trt.memory import (
    Arena,
    Block,
    DevicePlace,
    Pool,
    TrtTensor,
    rounded,
    row_runs,
)
from dyninfer.engines.trt.track import Ticket, Track
from dyninfer.errors import DeadlineError, EngineRunError
from dyninfer.plain_text import one_line
from dyninfer.spans import COPY, GATHER, DeviceSpan
from dyninfer.types import Int64Array

logger = logging.getLogger("dyninfer")
Shapes = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]
"""Name -> shape and element type of a tensor."""


_Layout = tuple[list[tuple[int, int, int]], dict[str, "npt.NDArray[Any]"]]
"""Copies (host address, device address, bytes), and the tensors that they make by name."""
_MOST_LAYOUTS = 64


@dataclass(slots=True, eq=False)
class _PinnedRead:
    """A copy to page-locked memory that was enqueued, and the point behind it."""

    cuda: Cuda
    ticket: Ticket
    values: npt.NDArray[Any]

    def numpy(self) -> npt.NDArray[Any]:
        """Wait for the copy, not for what was enqueued after it."""
        if not self.ticket.arrived:
            with self.cuda.active():
                self.ticket.wait()
        return self.values


class TrtWorkspace:
    """One caller's streams, and buffers from pools that all callers share.

    What happens on the device happens on one stream, in the order it was asked for, but for what
    is asked for :meth:`aside`. The host waits only for what it reads. Buffers have room for
    ``capacity`` images from the start, so that their addresses, which contexts and graphs hold,
    stay; ``scratch_size`` is what the largest stage needs for intermediate results, if known.
    """

    def __init__(
        self,
        cuda: Cuda,
        device_pool: Pool,
        pinned_pool: Pool,
        capacity: int = 1,
        scratch_size: int = 0,
    ) -> None:
        self.cuda = cuda
        self.capacity = capacity
        self.deadline: Deadline | None = None  # no stage can be interrupted, but waits end there
        self.timed = True
        self.lone = self.warming = False
        self.kept: dict[str, Any] = {}
        self.closed = False
        self._scratch_size = scratch_size
        self._device = Arena(device_pool, self.finish)
        self._pinned = Arena(pinned_pool, self.finish)
        self._lanes: dict[str, Lanes] = {}
        self._layouts: dict[tuple[object, ...], tuple[dict[str, TrtTensor], _Layout]] = {}
        self._sent: dict[Hashable, tuple[Track, int]] = {}  # page-locked buffers on their way
        with cuda.active():
            self.track = self._main = Track(cuda, self)
            self._side: Track | None = None

    @property
    def handle(self) -> int:
        """The stream as the number that other libraries take."""
        return self.track.handle

    @property
    def _tracks(self) -> tuple[Track, ...]:
        return (self._main,) if self._side is None else (self._main, self._side)

    def finish(self) -> None:
        """Let the host wait for all work, until the deadline if there is one.

        Inside ``cuda.active()``. Raises DeadlineError where that comes first; see :attr:`busy`.
        """
        for track in self._tracks:
            track.finish()

    @property
    def gave_up(self) -> bool:
        """Whether something was not waited for any longer, and may go on."""
        return self._main.gave_up or (self._side is not None and self._side.gave_up)

    @property
    def busy(self) -> bool:
        """See :attr:`dyninfer.engines.base.Workspace.busy`."""
        if not self.gave_up:
            return False
        with self.cuda.active():
            return any(track.busy() for track in self._tracks)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is asked for within this comes after all work so far, but beside what follows.

        It must not write what that reads or writes.
        """
        with self.cuda.active():
            if self._side is None:
                self._side = Track(self.cuda, self)
            event = self._main.event()
            self.cuda.order(self._side.stream, event)
            self._main.spare(event)  # CUDA keeps it until the wait is over
            self.track = self._side
        try:
            yield
        finally:
            self.track = self._main

    def lanes(self, stage: str) -> Lanes:
        """The execution contexts of a stage for this caller."""
        lanes = self._lanes.get(stage)
        if lanes is None:
            lanes = self._lanes[stage] = Lanes()
        return lanes

    def device_block(self, key: Hashable, size: int) -> Block:
        """A buffer on the device whose address no context holds, inside ``cuda.active()``."""
        return self._device.block(key, size)

    def _fixed_block(self, key: Hashable, size: int) -> Block:
        """A buffer whose address contexts hold: they go where it has to grow."""
        if self._device.outgrown(key, size):
            self.finish()
            for lanes in self._lanes.values():
                lanes.close()
        return self._device.block(key, size)

    def scratch(self, size: int) -> Block:
        """Memory for intermediate results, shared by all stages: they take turns on a stream."""
        key = "scratch" if self.track is self._main else "scratch aside"
        return self._fixed_block(key, max(size, self._scratch_size))

    def tensor(self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> TrtTensor:
        """A tensor of this shape in the device buffer ``key``."""
        block = self._fixed_block(key, self._room(shape, dtype))
        return TrtTensor(shape, dtype, DevicePlace(block.pointer, self, key, block))

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        return max(shape[0], self.capacity) * math.prod(shape[1:]) * dtype.itemsize

    def tensors(self, key: Hashable, shapes: Shapes) -> dict[str, TrtTensor]:
        """Tensors one behind the other in a device buffer, so that one copy reads them all."""
        room = sum(rounded(self._room(*shaped)) for shaped in shapes.values())
        block = self._fixed_block(key, room)
        made, pointer = {}, block.pointer
        for name, (shape, dtype) in shapes.items():
            made[name] = TrtTensor(shape, dtype, DevicePlace(pointer, self, (key, name), block))
            pointer += aligned(math.prod(shape) * dtype.itemsize)
        return made

    def host_array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """An array in page-locked memory, from which copies start without a detour."""
        key = ("host", name)
        with self.cuda.active():
            self._wait_until_sent(key)
            memory = self._host(key, self._room(shape, dtype))
        return memory[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def reserve_input(self, spec: TensorSpec) -> None:
        """Allocate what sending an image input takes."""
        dtype = np.dtype(spec.dtype)
        shape = (self.capacity, *(int(axis) for axis in spec.shape[1:]))
        self.tensor(("input", spec.name), shape, dtype)
        self._host(("host", spec.name), self._room(shape, dtype))

    def reserve_gathered(self, place: str, spec: TensorSpec) -> None:
        """Allocate what gathering a tensor at a place of the plan takes."""
        shape = spec.shape_for(self.capacity)
        if shape is not None:
            self.tensor(("gather", place, spec.name), shape, np.dtype(spec.dtype))

    def reserve_read(self, tensors: Mapping[str, TrtTensor]) -> None:
        """Allocate what reading tensors together takes."""
        self._read_block(list(tensors.values()))

    def _read_block(self, tensors: Sequence[TrtTensor]) -> Block:
        place = tensors[0].place
        assert place is not None
        size = sum(rounded(self._room(tensor.shape, tensor.dtype)) for tensor in tensors)
        if self._pinned.outgrown(("read", place.key), size):
            self._layouts.clear()  # they may hold its address
        return self._pinned.block(("read", place.key), size)

    def _host(self, key: Hashable, size: int) -> npt.NDArray[np.uint8]:
        memory = self._pinned.block(key, size).host
        assert memory is not None  # of a pool of page-locked memory
        return memory

    def place(self, name: str, tensor: TrtTensor) -> int:
        """The tensor's address on the device; one that is on the host is sent there first."""
        place = tensor.place
        if place is None or place.workspace is not self:
            assert tensor.array is not None  # tensors of another workspace are a caller's mistake
            place = tensor.place = self._upload(name, tensor.array)
        return place.pointer

    def _upload(self, name: str, array: npt.NDArray[Any]) -> DevicePlace:
        data = array.reshape(-1).view(np.uint8)
        key = self._pinned.holder(data)
        if key is None:
            key = ("staged", name)  # the other one is a picture's, whose padding stays in it
            self._wait_until_sent(key)
            staged = self._host(key, self._room(array.shape, array.dtype))[: data.nbytes]
            np.copyto(staged, data)
            data = staged
        sent = self.tensor(("input", name), array.shape, array.dtype).place
        assert sent is not None
        track = self.track
        track.begin()
        self.cuda.upload(sent.pointer, data, track.stream)
        self._sent[key] = track, track.number
        track.mark(COPY)
        return sent

    def _wait_until_sent(self, key: Hashable) -> None:
        """Wait until a page-locked buffer that is being sent may be written again."""
        sent = self._sent.get(key)
        if sent is not None and sent[0].arrived < sent[1]:
            sent[0].finish()

    def adopt(self, name: str, array: DeviceArray) -> TrtTensor:
        """Copy another library's array, on the device, to where graphs expect the input.

        The stream first waits for whoever still writes the array, and for what is sent ahead. Once
        a result was read from this workspace, the copy is over and the array may change.
        """
        with self.cuda.active():
            track = self.track
            if array.ready is not None:
                self.cuda.order(track.stream, array.ready)
            track.begin()
            other = array.order_before(track.handle)
            if other is not None:
                self.cuda.order_after(track.stream, other)
            tensor = self.tensor(("input", name), array.shape, array.dtype)
            size = len(array) * array.row_bytes
            self.cuda.copy_all([(tensor.pointer, array.pointer, size)], track.stream)
            if array.ready is None:  # what was sent ahead costs the call next to nothing
                track.mark(COPY)
        return tensor

    def gather(
        self, name: str, tensors: Mapping[str, TrtTensor], rows: Int64Array
    ) -> dict[str, TrtTensor]:
        """The given rows of each tensor as new tensors, by one set of copies within the device."""
        gathered, copies = {}, []
        with self.cuda.active():
            for own, tensor in tensors.items():
                source = self.place(own, tensor)
                shape = (len(rows), *tensor.shape[1:])
                made = self.tensor(("gather", name, own), shape, tensor.dtype)
                gathered[own], size = made, tensor.row_bytes
                copies += [
                    (made.pointer + target * size, source + first * size, count * size)
                    for first, target, count in row_runs(rows, tensor.shape)
                ]
            self.track.begin()
            self.cuda.copy_all(copies, self.track.stream)
            self.track.mark(GATHER)
        return gathered

    def read(
        self, tensors: Mapping[str, TrtTensor], rows: Int64Array | None
    ) -> dict[str, HostRead]:
        """Enqueue copies of tensors, or of some rows of each, to page-locked memory."""
        found = {n: t.to_host(rows) for n, t in tensors.items() if t.array is not None}
        places = tensors if not found else {n: t for n, t in tensors.items() if n not in found}
        if not places:
            return found
        with self.cuda.active():
            copies, views = self._reading(places) if rows is None else self._layout(places, rows)
            track = self.track
            if not track.follows_read():
                track.begin()
            self.cuda.download(copies, track.stream)
            ticket = track.ticket()
        for name, values in views.items():
            found[name] = _PinnedRead(self.cuda, ticket, values)
        return found

    def _reading(self, tensors: Mapping[str, TrtTensor]) -> _Layout:
        """The layout of whole tensors, kept for those that stages give again and again."""
        key = (*tensors, *map(id, tensors.values()))
        known = self._layouts.get(key)
        if known is None:
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            # the tensors are kept with it, so that no other gets the same id
            known = self._layouts[key] = dict(tensors), self._layout(tensors, None)
        return known[1]

    def _layout(self, tensors: Mapping[str, TrtTensor], rows: Int64Array | None) -> _Layout:
        """Where tensors, or some rows of each, lie in page-locked memory when they were read."""
        block = self._read_block(list(tensors.values()))
        assert block.host is not None  # of a pool of page-locked memory
        copies, places = lay_out(tensors, rows)
        views = {
            name: block.host[at : at + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for name, at, shape, dtype in places
        }
        return [(block.pointer + at, source, size) for at, source, size in copies], views

    def device_spans(self) -> Sequence[DeviceSpan]:
        """See :meth:`dyninfer.engines.base.Workspace.device_spans`; waits for the last step.

        What is not over at the deadline has no times; the results are there.
        """
        spans: list[DeviceSpan] = []
        with self.cuda.active():
            try:
                if self._side is not None:  # nobody asks before a call is over: none of it goes on
                    self._side.finish()
                for track in self._tracks:
                    spans += track.clock.spans() if not track.gave_up else []
            except DeadlineError:
                return ()
        return spans

    def close(self) -> None:
        """Wait for the streams, then free contexts, events and streams, and return buffers.

        After a failure on the device CUDA may refuse some of that; it is logged, and all else is
        freed.
        """
        if self.closed:
            return
        self.closed = True
        try:
            with Freeing(self.cuda.active()) as freeing:
                self._close(freeing)
        except EngineRunError as error:
            logger.warning("a GPU workspace could not be freed: %s", one_line(str(error)))

    def _close(self, freeing: Freeing) -> None:
        self.deadline = None
        for track in self._tracks:
            freeing.run(self.cuda.synchronize, track.stream)
        for lanes in self._lanes.values():
            freeing.run(lanes.close)
        self.kept.clear()
        self._sent.clear()
        self._layouts.clear()
        for track in self._tracks:
            freeing.run(track.close)
        self._device.close()
        self._pinned.close()
