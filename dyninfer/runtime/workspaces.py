"""Workspaces on loan to calls, in a way that no interruption can lose.

A signal's handler may run, and raise, between any two steps of a call. So nothing in here holds a
lock that would have to be given back: what is lent is a set of weak references, which the
interpreter itself takes a loan out of once nobody holds it any more, and sets and lists change in
single steps.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from dyninfer.engines.base import Backend, Engine
from dyninfer.errors import InputError
from dyninfer.forks import leave_alone

_POLL_S = 0.002  # a lock that is waited for could be lost to an interruption


class WorkspacePool:
    """The buffers of calls: each borrows its own, and they are kept for the next.

    Args:
        backend: makes workspaces.
        engines: by stage, what runs in them. Both are closed with the pool.
    """

    def __init__(self, backend: Backend[Any, Any], engines: dict[str, Engine[Any, Any]]) -> None:
        self._backend = backend
        self._engines = engines
        self.reopen: Callable[[], None] | None = None  # the engines, for the first call to come
        self._made: list[Any] = []
        self._free: list[Any] = []
        self._lent: set[_LoanRef] = set()
        self.closed = False
        self._deferred = False  # to the call that is under way in the thread that closed
        self._unchanged: object = None  # the sweep during which no call has taken a workspace

    def lend(self) -> Loan:
        """Borrow buffers that no other call uses, as a context manager.

        They are kept for the next caller, but for those of a call that failed: what it left in
        them is not known.

        Raises:
            InputError: on entering, where the pool was closed.
        """
        return Loan(self)

    def check_open(self) -> None:
        """Raise InputError once the pool was closed."""
        if self.closed:
            raise InputError("the detector was closed; load the bundle again")

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is under way, or for ``timeout_s``; whether none is."""
        return self._wait(lambda: not self._lent, timeout_s)

    def close(self) -> None:
        """Lend nothing any more, wait for the calls of other threads, and free everything.

        A call of this very thread is not waited for: it is one that a signal's handler interrupted
        to close the detector, goes on after it, and frees everything when it ends.
        """
        self.closed = True
        here = threading.get_ident()
        self._wait(lambda: all(loan.thread == here for loan in tuple(self._lent)))
        if self._lent:
            self._deferred = True
        else:
            self._end()

    def _end(self) -> None:
        """Free everything; another thread may do so at the same time."""
        made, self._made, self._free = self._made, [], []
        for workspace in made:
            workspace.close()
        for name in list(self._engines):
            if engine := self._engines.pop(name, None):
                engine.close()
        if self.reopen is None:  # else all that the backend holds is the parent's
            self._backend.close()

    def after_fork(self, reopen: Callable[[], None]) -> None:
        """Start anew in a child process: calls of the parent's other threads never end here."""
        leave_alone((self._made, dict(self._engines)))
        self._engines.clear()
        self._made, self._free, self._lent = [], [], set()
        self.reopen = reopen

    def _wait(self, over: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
        end = time.monotonic() + timeout_s
        while not over():
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True

    def _take(self) -> Any:
        self._unchanged = None
        try:
            return self._free.pop()
        except IndexError:
            if self.reopen is not None:
                self.reopen()
            self._sweep()
            made = self._backend.workspace()
            self._made.append(made)
            return made

    def _sweep(self) -> None:
        """Free what an interruption has taken from a call before it could give it back.

        Other threads take and give back meanwhile. One that takes a workspace says so first; it
        might be in neither list when they are read, and then nothing is freed this time.
        """
        sweep = self._unchanged = object()
        held = [loan.workspace for loan in tuple(self._lent)]
        known = {id(workspace) for workspace in [*held, *self._free]}
        lost = [made for made in self._made if id(made) not in known]
        taking = held.count(None) > 1  # some call, besides the one that sweeps
        if taking or self._unchanged is not sweep:
            return
        for workspace in lost:
            self.drop(workspace)

    def drop(self, workspace: Any) -> None:
        """Free buffers that nobody may use again; those of a device at work, later."""
        if not workspace.busy:
            workspace.close()
            self._made.remove(workspace)


class _LoanRef(weakref.ref["Loan"]):
    """What the pool knows of a loan: whose it is, and of what once that is known."""

    __slots__ = ("thread", "workspace")
    __eq__, __hash__ = object.__eq__, object.__hash__  # known even where the loan is gone
    thread: int
    workspace: Any


class Loan:
    """A workspace on loan; a class, because a generator would take longer than the loan."""

    __slots__ = ("__weakref__", "_pool", "_reference")

    def __init__(self, pool: WorkspacePool) -> None:
        self._pool = pool

    def __enter__(self) -> Any:
        pool = self._pool
        # the set's own method, not one of ours: the interpreter runs no handler within it
        reference = self._reference = _LoanRef(self, pool._lent.discard)
        reference.thread = threading.get_ident()
        reference.workspace = None
        pool._lent.add(reference)
        try:
            pool.check_open()
            workspace = reference.workspace = pool._take()
            workspace.deadline = None  # the former caller's is none of ours
            workspace.lone = workspace.warming = False
            workspace.timed = True
        except BaseException:
            pool._lent.discard(reference)
            raise
        return reference.workspace

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pool, reference = self._pool, self._reference
        if kind is None and not reference.workspace.busy:
            pool._free.append(reference.workspace)
        else:
            pool.drop(reference.workspace)
        pool._lent.discard(reference)
        if pool._deferred and not pool._lent:
            pool._end()
