"""Work of a C++ library that a Ctrl-C asks to stop, and waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

POLL_SECONDS = 0.1
ResultT = TypeVar("ResultT")


@dataclass
class Attempt(Generic[ResultT]):
    """What the working thread leaves behind."""

    results: list[ResultT] = field(default_factory=list)
    error: BaseException | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


def run_cancellable(work: Callable[[threading.Event], ResultT], name: str) -> ResultT:
    """Run ``work`` in a thread of its own; what it raises is raised here.

    A Ctrl-C that arrives while C++ calls back into Python would be raised inside C++, which ends
    the process. Here it sets the event that ``work`` gets, and is raised once ``work`` has ended.
    It should look at the event from time to time and end early when it is set.
    """
    attempt: Attempt[ResultT] = Attempt()

    def target() -> None:
        attempt.go.wait()
        try:
            if not attempt.cancelled.is_set():
                attempt.results.append(work(attempt.cancelled))
        except BaseException as error:  # raised again below, in the caller's thread
            attempt.error = error
        finally:  # also where nothing was begun: the interrupt may have come just after go
            attempt.ended.set()

    _wait_for(threading.Thread(target=target, name=name, daemon=True), attempt)
    if attempt.error is not None:
        raise attempt.error
    return attempt.results[0]


def _wait_for(thread: threading.Thread, attempt: Attempt[ResultT]) -> None:
    """Start the thread and wait; an interrupt asks it to give up, and is raised once it has.

    Leaving C++ behind at work would crash the interpreter when it ends. So the thread begins only
    when ``go`` is set, for an interrupted start does not tell whether it runs; and not Thread.join
    waits for it, which up to Python 3.12 takes the thread for ended when it is interrupted.
    """
    interrupt: BaseException | None = None
    try:
        thread.start()
        attempt.go.set()
    except BaseException as error:
        interrupt = error
        attempt.cancelled.set()
    while attempt.go.is_set() and not attempt.ended.is_set():
        try:
            attempt.ended.wait(POLL_SECONDS)
        except BaseException as error:
            interrupt = error
            attempt.cancelled.set()
    if interrupt is not None:
        attempt.go.set()
        raise interrupt
