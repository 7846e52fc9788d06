"""Deadlines of calls, and the thread that interrupts what runs beyond them."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dyninfer.errors import DeadlineError, InputError
from dyninfer.types import as_float, shown


class Deadline:
    """A moment by which a call is to be answered, ``ms`` milliseconds from now.

    What runs at that moment is interrupted, once; what answers in its place is not, though late.
    """

    def __init__(self, ms: float) -> None:
        self.ms = ms
        self.at = time.monotonic() + ms / 1e3
        self.passed = False
        self._interrupt: Callable[[], None] | None = None
        _watchdog.watch(self)

    def check(self) -> None:
        """Raise DeadlineError once the moment has come."""
        if time.monotonic() >= self.at:
            self.passed = True  # what answers instead must not be interrupted by a late watchdog
            raise DeadlineError(str(self))

    def __str__(self) -> str:
        return f"the deadline of {self.ms:g} ms has passed"

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call ``interrupt`` if the moment comes while the body of the ``with`` runs."""
        self._interrupt = interrupt
        if self.passed:  # just now
            interrupt()
        try:
            yield
        finally:
            self._interrupt = None

    def expire(self) -> None:
        """The moment has come; called by the watchdog's thread."""
        self.passed = True
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()


def check_deadline(ms: Any) -> float:
    """Refuse a deadline that is no number of milliseconds above 0.

    Raises:
        InputError: with what was given.
    """
    number = as_float(ms)
    if not 0 < number < float("inf"):
        raise InputError(f"deadline_ms is {shown(ms)}, expected a number of milliseconds above 0")
    return number


class _Watchdog:
    """One thread for all deadlines of the process; it starts with the first.

    It is told by a queue that no interruption can leave locked, and forgets deadlines when they
    have come, whether their calls are over or not.
    """

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Deadline] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def watch(self, deadline: Deadline) -> None:
        """Let a deadline expire when its moment comes."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="dyninfer-deadline", daemon=True
            )
            self._thread.start()
        self._told.put(deadline)

    def _work(self) -> None:
        pending: list[tuple[float, int, Deadline]] = []
        numbers = itertools.count()  # deadlines have no order of their own
        while True:
            wait_s = max(0.0, pending[0][0] - time.monotonic()) if pending else None
            with suppress(queue.Empty):
                told = self._told.get(timeout=wait_s)
                heapq.heappush(pending, (told.at, next(numbers), told))
            while pending and pending[0][0] <= time.monotonic():
                heapq.heappop(pending)[2].expire()


_watchdog = _Watchdog()


def _in_child() -> None:
    global _watchdog  # its thread is the parent's
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
