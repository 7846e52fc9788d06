"""What a stream does and for how long, by events between its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.spans import COPY, GATHER, DeviceSpan

_IDLE = ""


class DeviceClock:
    """Events on a stream, used again from batch to batch, and what ended at each.

    ``finish`` lets the host wait for the stream. The clock runs while there is work: from
    :meth:`start` until :meth:`pause`. All methods are called inside ``cuda.active()``.
    """

    def __init__(self, cuda: Cuda, stream: Any, finish: Callable[[], None]) -> None:
        self.events: list[Any] = []
        self._cuda = cuda
        self._stream = stream
        self._finish = finish
        self._names: list[str] = []
        self._running = False

    def start(self) -> None:
        """Note the time before the first work of a batch, and before the first after a read.

        While values travel to the host and it decides on the route, the device stands still; that
        time is nobody's. Otherwise this does nothing.
        """
        if not self._running:
            self._running = True
            self._tick(_IDLE)

    def pause(self) -> None:
        """Until the next :meth:`start` the device waits for the host."""
        self._running = False

    def mark(self, name: str) -> None:
        """Note the time after a stage, copies or gathers: what lies between two marks is theirs."""
        if name not in (COPY, GATHER) and name in self._names:
            self._forget()  # nobody asked for the times of the batch before
        self._tick(name)

    def _tick(self, name: str) -> None:
        if len(self._names) == len(self.events):
            self.events.append(self._cuda.new_event(timing=True))
        self._cuda.record(self.events[len(self._names)], self._stream)
        self._names.append(name)

    def _forget(self) -> None:
        """Drop what was noted before the clock was started last."""
        start = len(self._names) - 1 - self._names[::-1].index(_IDLE)
        self._names = self._names[start:]
        self.events = [*self.events[start:], *self.events[:start]]

    def spans(self) -> list[DeviceSpan]:
        """What was done since this was asked last; waits for the last mark.

        A stage's time includes the gaps between its kernels, but not that in which the device
        stood still before it.
        """
        names, self._names, self._running = self._names, [], False
        if not names:
            return []
        self._finish()
        return [
            (name, self._cuda.elapsed_ms(self.events[index - 1], self.events[index]))
            for index, name in enumerate(names)
            if name != _IDLE
        ]

    def close(self) -> None:
        """Free the events, and let go of the stream, which must be idle."""
        with Freeing() as freeing:
            while self.events:
                freeing.run(self._cuda.destroy_event, self.events.pop())
            self._stream = None  # PyCUDA destroys it with the last reference
