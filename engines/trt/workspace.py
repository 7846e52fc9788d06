"""Everything that one caller at a time needs on the GPU: a stream, buffers, clocks."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import HostRead
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.trt.clock import DeviceClock
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.memory import Arena, Block, DevicePlace, Pool, TrtTensor, row_runs
from dyninfer.errors import DeadlineError, EngineRunError
from dyninfer.plain_text import one_line
from dyninfer.spans import COPY, GATHER, DeviceSpan
from dyninfer.types import Int64Array

if TYPE_CHECKING:
    from dyninfer.engines.trt.lane import Lane

logger = logging.getLogger("dyninfer")


@dataclass(frozen=True)
class _PinnedRead:
    """A copy to page-locked memory that was enqueued, and the event behind it."""

    workspace: TrtWorkspace
    event: Any
    values: npt.NDArray[Any]

    def numpy(self) -> npt.NDArray[Any]:
        """Wait for the copy, not for what was enqueued after it."""
        with self.workspace.cuda.active():
            self.workspace.wait(self.event)
        return self.values


class TrtWorkspace:
    """One caller's stream, and buffers from pools that all callers share.

    Everything on the device happens on one stream, in the order it was asked for: no stage needs
    to wait for another one. The host waits only for what it reads. ``scratch_size`` is what the
    largest stage needs for intermediate results, if known.
    """

    def __init__(
        self, cuda: Cuda, device_pool: Pool, pinned_pool: Pool, scratch_size: int = 0
    ) -> None:
        self.cuda = cuda
        with cuda.active():
            self.stream = cuda.new_stream()
        self.handle = cuda.handle(self.stream)
        self._device = Arena(device_pool, self.finish)
        self._pinned = Arena(pinned_pool, self.finish)
        self._read_events: dict[Hashable, Any] = {}
        self._uploaded: Any = None
        self.clock = DeviceClock(cuda, self.stream, self.wait)
        self._lanes: dict[str, OrderedDict[Hashable, Lane]] = {}
        self.kept: dict[str, Any] = {}
        self.lone = False  # a GPU runs what it is given, from whatever thread
        self.deadline: Deadline | None = None  # no stage can be interrupted, but waits end there
        self._gave_up = False
        self._last: Any = None  # an event behind all work, where it is waited for at all
        self._last_is_behind = False
        self.closed = False
        if scratch_size:
            with cuda.active():
                self.scratch(scratch_size)

    def wait(self, event: Any) -> None:
        """Let the host wait for an event until the deadline, if there is one.

        Inside ``cuda.active()``, as :meth:`finish` is.

        Raises:
            DeadlineError: it came first; see :attr:`busy`.
        """
        if self.deadline is None:
            self.cuda.wait(event)
            return
        try:
            self.cuda.wait_until(event, self.deadline)
        except DeadlineError:
            self._gave_up, self._last_is_behind = True, False
            raise

    def finish(self) -> None:
        """As :meth:`wait`, for everything that was enqueued."""
        if self.deadline is None:
            self.cuda.synchronize(self.stream)
        else:
            self.wait(self._record_last())

    def _record_last(self) -> Any:
        if self._last is None:
            self._last = self.cuda.new_event(timing=False)
        self.cuda.record(self._last, self.stream)
        return self._last

    @property
    def busy(self) -> bool:
        """See :attr:`dyninfer.engines.base.Workspace.busy`."""
        if not self._gave_up:
            return False
        try:
            with self.cuda.active():
                if not self._last_is_behind:  # nothing is enqueued once this was asked
                    self._record_last()
                    self._last_is_behind = True
                self._gave_up = not self.cuda.happened(self._last)
        except EngineRunError:  # closing it says so
            self._gave_up = False
        return self._gave_up

    def lanes(self, stage: str) -> OrderedDict[Hashable, Lane]:
        """The execution contexts of a stage for this caller, least recently used first."""
        return self._lanes.setdefault(stage, OrderedDict())

    def device_block(self, key: Hashable, size: int) -> Block:
        """A buffer on the device, inside ``cuda.active()``."""
        return self._device.block(key, size)

    def scratch(self, size: int) -> Block:
        """Memory for intermediate results, shared by all stages: they take turns on the stream."""
        return self._device.block("scratch", size)

    def tensor(self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]) -> TrtTensor:
        """A tensor of this shape in the device buffer ``key``."""
        block = self.device_block(key, math.prod(shape) * dtype.itemsize)
        return TrtTensor(shape, dtype, DevicePlace(block.pointer, self, key))

    def host_array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A float32 array in page-locked memory, from which copies start without a detour."""
        with self.cuda.active():
            self._wait_for_uploads()
            return self._host(("host", name), shape, np.dtype(np.float32))

    def _host(
        self, key: Hashable, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        size = math.prod(shape) * dtype.itemsize
        memory = self._pinned.block(key, size).host
        assert memory is not None  # of a pool of page-locked memory
        return memory[:size].view(dtype).reshape(shape)

    def place(self, name: str, tensor: TrtTensor) -> int:
        """The tensor's address on the device; one that is on the host is sent there first."""
        if tensor.place is None or tensor.place.workspace is not self:
            assert tensor.array is not None  # tensors of another workspace are a caller's mistake
            tensor.place = self._upload(("input", name), tensor.array)
        return tensor.place.pointer

    def _upload(self, key: Hashable, array: npt.NDArray[Any]) -> DevicePlace:
        self.clock.start()
        data = array.reshape(-1).view(np.uint8)
        if not self._pinned.holds(data):
            self._wait_for_uploads()
            staged = self._host(("staged", key), data.shape, data.dtype)
            np.copyto(staged, data)
            data = staged
        block = self.device_block(key, data.nbytes)
        self.cuda.upload(block.pointer, data, self.stream)
        if self._uploaded is None:
            self._uploaded = self.cuda.new_event(timing=False)
        self.cuda.record(self._uploaded, self.stream)
        self.clock.mark(COPY)
        return DevicePlace(block.pointer, self, key)

    def _wait_for_uploads(self) -> None:
        """Wait until page-locked memory that is being sent may be written again."""
        if self._uploaded is not None:
            self.wait(self._uploaded)

    def adopt(self, name: str, array: DeviceArray) -> TrtTensor:
        """Copy another library's array, on the device, to where graphs expect the input.

        The stream first waits for whoever still writes the array. Once a result was read from
        this workspace, the copy is over and the array may change.
        """
        with self.cuda.active():
            self.clock.start()
            other = array.order_before(self.handle)
            if other is not None:
                self.cuda.order_after(self.stream, other)
            tensor = self.tensor(("input", name), array.shape, array.dtype)
            size = len(array) * array.row_bytes
            self.cuda.copy(tensor.pointer, array.pointer, size, self.stream)
            self.clock.mark(COPY)
        return tensor

    def gather(self, name: str, tensor: TrtTensor, rows: Int64Array) -> TrtTensor:
        """The given rows as a new tensor, by copies within the device."""
        with self.cuda.active():
            self.clock.start()
            source = self.place(name, tensor)
            shape = (len(rows), *tensor.shape[1:])
            gathered = self.tensor(("gather", name), shape, tensor.dtype)
            size = tensor.row_bytes
            for first, target, count in row_runs(rows, tensor.shape):
                goal = gathered.pointer + target * size
                self.cuda.copy(goal, source + first * size, count * size, self.stream)
            self.clock.mark(GATHER)
        return gathered

    def read(self, tensor: TrtTensor, rows: Int64Array | None) -> HostRead:
        """Enqueue copies of a tensor, or of some rows, to page-locked memory."""
        assert tensor.place is not None  # the tensor asks only if it is on the device
        count = tensor.shape[0] if rows is None else len(rows)
        runs = [(0, 0, count)] if rows is None else row_runs(rows, tensor.shape)
        key, size = tensor.place.key, tensor.row_bytes
        with self.cuda.active():
            values = self._host(("read", key), (count, *tensor.shape[1:]), tensor.dtype)
            data = values.reshape(-1).view(np.uint8)
            for first, target, length in runs:
                part = data[target * size : (target + length) * size]
                self.cuda.download(part, tensor.pointer + first * size, self.stream)
            event = self._read_events.get(key)
            if event is None:
                event = self._read_events[key] = self.cuda.new_event(timing=False)
            self.cuda.record(event, self.stream)
        self.clock.pause()
        return _PinnedRead(self, event, values)

    def device_spans(self) -> Sequence[DeviceSpan]:
        """See :meth:`dyninfer.engines.base.Workspace.device_spans`; waits for the last step.

        What is not over at the deadline has no times; the results are there.
        """
        try:
            return () if self._gave_up else self.clock.spans()
        except DeadlineError:
            return ()

    def close(self) -> None:
        """Wait for the stream, then free contexts, events and the stream, and return buffers.

        After a failure on the device CUDA may refuse all of that; it is logged, and the memory
        is not used again.
        """
        if self.closed:
            return
        self.closed = True
        try:
            with self.cuda.active():
                self._close()
        except EngineRunError as error:
            logger.warning("a GPU workspace could not be freed: %s", one_line(str(error)))

    def _close(self) -> None:
        self.cuda.synchronize(self.stream)
        for lanes in self._lanes.values():
            while lanes:
                lanes.popitem()[1].close()
        events = list(self._read_events.values())
        for event in (*events, self._uploaded, self._last):
            if event is not None:
                self.cuda.destroy_event(event)
        self.kept.clear()
        self._uploaded = self._last = None
        self._read_events.clear()
        self.clock.close()
        self._device.close()
        self._pinned.close()
        self.cuda.destroy_stream(self.stream)
        self.stream = None
