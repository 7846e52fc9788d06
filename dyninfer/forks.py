"""What a forked child process does with what its parent opened, and when a fork may happen.

Threads do not survive a fork, and engines wait for theirs for ever when they are freed. So the
child leaves the parent's engines alone for as long as it lives, and a detector opens its own when
it is used first.

Nor do the locks of libraries survive that another thread of the parent held: a child would wait
for them for ever when it opens engines. So a fork waits until no other thread opens any. Nothing
here holds a lock of its own, see :mod:`dyninfer.runtime.workspaces`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from dyninfer.errors import BackendUnavailable

T = TypeVar("T")

PATIENCE_S = 30.0
"""How long forks and openings wait for each other: a handler of signals may wait, in the thread
that opens, for the one that forks."""
_POLL_S = 0.002


class Forked(Protocol):
    """What must know that it is in a child process now."""

    def after_fork(self) -> None:
        """Leave alone what the parent's threads serve. Runs first thing in the child."""


_alive: weakref.WeakSet[Forked] = weakref.WeakSet()
_threaded: weakref.WeakSet[Any] = weakref.WeakSet()
_openings: set[_Reference] = set()
_forking: list[int] = []  # threads, the first of which may fork
_hasty = False  # whether the last fork had waited for too long
_unsure = False  # whether that was this process's own


def tell_after_fork(opened: Forked) -> None:
    """Call :meth:`Forked.after_fork` in every child that is forked while the object lives."""
    _alive.add(opened)


def never_free_in_child(native: T) -> T:
    """Keep what threads or locks of another library serve, in every child that is forked later.

    Even where it is out of use: a traceback may hold it, or it awaits the garbage collector.
    """
    _threaded.add(native)
    return native


def leave_alone(opened: object) -> None:
    """Let an object live as long as the process, so that nothing of it is ever freed."""
    import ctypes  # slow to import, and needed in children only

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))


def check_parent() -> None:
    """Refuse to open anything where that may take for ever.

    Raises:
        BackendUnavailable: this is a child whose parent was still opening something when it forked.
    """
    if _unsure:
        raise BackendUnavailable(
            "this process was forked while its parent opened a bundle in another thread, for "
            f"longer than {PATIENCE_S:g} s; fork before, or when all bundles are open"
        )


class Opening:
    """While another library is loaded or opens something: no other thread forks meanwhile.

    Use it as a context manager, as often within itself as is wanted. It waits for a fork that is
    about to happen.
    """

    __slots__ = ("__weakref__", "_reference")

    def __enter__(self) -> None:
        here = threading.get_ident()
        within = any(other.thread == here for other in tuple(_openings))
        # the set's own method, not one of ours: the interpreter runs no handler within it
        reference = self._reference = _Reference(self, _openings.discard)
        reference.thread = here
        _openings.add(reference)
        while not within and set(_forking) - {here}:
            _openings.discard(reference)
            within = not _wait(lambda: not set(_forking) - {here})  # or it has waited long enough
            _openings.add(reference)

    def __exit__(self, *_: object) -> None:
        _openings.discard(self._reference)


class _Reference(weakref.ref[Opening]):
    """What is known of an opening; it goes with it, where an interruption has lost it."""

    __slots__ = ("thread",)
    __eq__, __hash__ = object.__eq__, object.__hash__  # known even where the opening is gone
    thread: int


def _wait(over: Callable[[], bool]) -> bool:
    """Wait, not for ever; whether it is over."""
    end = time.monotonic() + PATIENCE_S
    while not over():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


def _may_fork() -> bool:
    """Whether it is this thread's turn, and nothing is being opened in another one."""
    here = threading.get_ident()
    if here not in _forking:  # another thread's fork has cleared the list
        _forking.append(here)
    return _forking[:1] == [here] and all(other.thread == here for other in tuple(_openings))


def _before() -> None:
    """Python prints what a signal's handler raises in here, and goes on to fork."""
    global _hasty
    try:
        _hasty = not _wait(_may_fork)
    except BaseException:
        _hasty = not _wait(_may_fork)
        raise


def _in_child() -> None:
    global _unsure
    _unsure = _unsure or _hasty
    _openings.clear()
    for native in list(_threaded):
        leave_alone(native)
    for opened in list(_alive):
        opened.after_fork()


if hasattr(os, "register_at_fork"):
    # a method of the list's: a signal's handler could keep one of ours from being run
    os.register_at_fork(after_in_parent=_forking.clear, after_in_child=_forking.clear)
    os.register_at_fork(before=_before, after_in_child=_in_child)
