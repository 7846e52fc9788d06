"""What a forked child process does with detectors that its parent opened.

Threads do not survive a fork, and engines wait for theirs for ever when they are freed. So the
child leaves the parent's engines alone for as long as it lives, and a detector opens its own when
it is used first.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What must know that it is in a child process now."""

    def after_fork(self) -> None:
        """Leave alone what the parent's threads serve. Runs first thing in the child."""


_alive: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_after_fork(opened: Forked) -> None:
    """Call :meth:`Forked.after_fork` in every child that is forked while the object lives."""
    _alive.add(opened)


def leave_alone(opened: object) -> None:
    """Let an object live as long as the process, so that nothing of it is ever freed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))


def _in_child() -> None:
    for opened in list(_alive):
        opened.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
