"""Exceptions that a signal's handler raised, wherever that was: they are the application's own.

Time-outs are made so. Code that turns errors of a library or a file into its own must let them
through.
"""

from __future__ import annotations

import functools
import signal
import traceback
from collections.abc import Iterator
from types import CodeType


def let_through(error: BaseException) -> None:
    """Raise what a signal's handler raised, if that is behind an error; otherwise do nothing."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if _from_handler(behind):
            raise behind
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__


def _from_handler(error: BaseException) -> bool:
    handlers = set(_handlers())
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _handlers() -> Iterator[CodeType]:
    """The code of every handler that is set now."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for function in (handler, getattr(handler, "__func__", None), type(handler).__call__):
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code
