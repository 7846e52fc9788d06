"""A stream, and how far the host knows that it has come."""

from __future__ import annotations

from typing import Any, Protocol

from dyninfer.engines.deadline import Deadline
from dyninfer.engines.trt.clock import DeviceClock
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.errors import DeadlineError, EngineRunError

_USUAL_EVENTS = 4
"""Points that are waited for at the same time on routes of up to so many exits."""


class Caller(Protocol):
    """Whose work is on the stream: until when it waits, and whether it wants to know the times."""

    deadline: Deadline | None
    timed: bool


class Ticket:
    """A point in a stream's work that somebody will wait for.

    An event is recorded for it only when more work follows: the host waits for the last point by
    waiting for the whole stream, which is one call less.
    """

    __slots__ = ("_track", "event", "number")

    def __init__(self, track: Track) -> None:
        self._track = track
        self.event: Any = None
        self.number = 0

    @property
    def arrived(self) -> bool:
        """Whether the host knows that the stream has come here."""
        return self.number <= self._track.arrived

    def wait(self) -> None:
        """Let the host wait for this point, until the deadline if there is one."""
        self._track.wait_for(self)


class Track:
    """One stream of a caller: everything on it happens in the order it was asked for.

    ``number`` counts what was enqueued, ``arrived`` is up to which of it the host knows to be
    over. All methods are called inside ``cuda.active()``.
    """

    def __init__(self, cuda: Cuda, caller: Caller) -> None:
        self._cuda, self._caller = cuda, caller
        self.stream = cuda.new_stream()
        self.handle = cuda.handle(self.stream)
        self.clock = DeviceClock(cuda, self.stream, self.finish)
        self.number = self.arrived = 0
        self._open: Ticket | None = None
        self._events: list[Any] = []
        self._spare = [self._new_event() for _ in range(_USUAL_EVENTS)]
        self._last: Any = None  # an event behind all work, where a deadline was given up
        self._last_is_behind = False
        self.gave_up = False

    def begin(self) -> None:
        """Before anything is enqueued."""
        if self._open is not None:
            self._seal(self._open)
        self.number += 1
        if self._caller.timed:
            self.clock.start()

    def mark(self, name: str) -> None:
        """After a stage, copies or gathers: what lies between two marks is theirs."""
        if self._caller.timed:
            self.clock.mark(name)
            if self.arrived == self.number:  # a stage was waited for, and now there is the mark
                self.number += 1

    def ticket(self) -> Ticket:
        """The point behind all that was enqueued, and what is read right after it."""
        ticket = self._open
        if ticket is None:
            ticket = self._open = Ticket(self)
        ticket.number = self.number
        self.clock.pause()
        return ticket

    def follows_read(self) -> bool:
        """Whether the last thing that was enqueued is a read that nobody has waited for."""
        return self._open is not None

    def event(self) -> Any:
        """An event behind all that was enqueued; give it back to ``spare`` when it has happened."""
        if not self._spare:
            return self._new_event()
        event = self._spare.pop()
        self._cuda.record(event, self.stream)
        return event

    def spare(self, event: Any) -> None:
        """Let an event be recorded anew."""
        self._spare.append(event)

    def _new_event(self) -> Any:
        event = self._cuda.new_event(timing=False)
        self._events.append(event)
        self._cuda.record(event, self.stream)  # PyCUDA's are waited for before they go
        return event

    def _seal(self, ticket: Ticket) -> None:
        ticket.event = self.event()
        self._open = None

    def wait_for(self, ticket: Ticket) -> None:
        """See :meth:`Ticket.wait`."""
        if ticket.arrived:
            return
        if ticket is self._open:
            self.finish()
            return
        self._wait(ticket.event)
        self._spare.append(ticket.event)
        self.arrived = ticket.number

    def finish(self) -> None:
        """Let the host wait for everything that was enqueued, until the deadline if there is one.

        Raises:
            DeadlineError: it came first; see :meth:`busy`.
        """
        if self.arrived == self.number:
            return
        number = self.number
        if self._caller.deadline is None:
            self._cuda.synchronize(self.stream)
        else:
            self._wait(self._record_last())
        self._open = None
        self.arrived = number

    def _wait(self, event: Any) -> None:
        if self._caller.deadline is None:
            self._cuda.wait(event)
            return
        try:
            self._cuda.wait_until(event, self._caller.deadline)
        except DeadlineError:
            self.gave_up, self._last_is_behind = True, False
            raise

    def _record_last(self) -> Any:
        if self._last is None:
            self._last = self._new_event()
        self._cuda.record(self._last, self.stream)
        return self._last

    def busy(self) -> bool:
        """Whether work goes on that was not waited for any longer; more must not be enqueued."""
        if not self.gave_up:
            return False
        try:
            if not self._last_is_behind:  # nothing is enqueued once this was asked
                self._record_last()
                self._last_is_behind = True
            self.gave_up = not self._cuda.happened(self._last)
        except EngineRunError:  # closing it says so
            self.gave_up = False
        return self.gave_up

    def close(self) -> None:
        """Free the events and the stream, which must be idle; what CUDA refuses comes last.

        Raises:
            EngineRunError: the first refusal; all else is freed.
        """
        with Freeing() as freeing:
            freeing.run(self.clock.close)
            while self._events:
                freeing.run(self._cuda.destroy_event, self._events.pop())
            self._spare.clear()
            self._last = self._open = None
            stream, self.stream = self.stream, None
            freeing.run(self._cuda.destroy_stream, stream)
