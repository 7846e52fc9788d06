"""Being ended by a supervisor or a closed terminal: cleaned up after as Ctrl-C is."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def ending_signals() -> Iterator[list[int]]:
    """Let signals that end a process raise KeyboardInterrupt; gives those that came.

    Supervisors send theirs more than once: only the first interrupts, so that cleaning up is not
    interrupted in turn. What is ignored, as with nohup, or handled by the application stays so.
    """
    came: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    mine = []
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        mine = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
