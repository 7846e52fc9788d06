"""Errors that others have raised: what they say, and those that are none of ours.

What a signal's handler raised, wherever that was, is the application's own; time-outs are made so.
Code that turns errors of a library or a file into its own must let it through.
"""

from __future__ import annotations

import functools
import signal
import traceback
from collections.abc import Iterator
from types import CodeType

libraries_keep_quiet = False
"""Whether libraries print nothing beside what they raise; commands set it before importing any."""


def let_through(error: BaseException) -> None:
    """Raise what a signal's handler raised, if that is behind an error; otherwise do nothing."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        if _from_handler(behind):
            raise behind
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__


def reason_of(error: BaseException) -> str:
    """The first line of what another library's exception says, or else its class.

    What a signal's handler raised passes through, as by :func:`let_through`.
    """
    let_through(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _from_handler(error: BaseException) -> bool:
    handlers = set(_handlers())
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _handlers() -> Iterator[CodeType]:
    """The code of every handler that is set now."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        if not callable(handler):  # SIG_DFL, whose class Python calls for every number of an enum
            continue
        for function in (handler, getattr(handler, "__func__", None), type(handler).__call__):
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code
