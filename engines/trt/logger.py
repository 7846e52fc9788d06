"""What TensorRT says while it works: kept for error messages, passed on to Python's logging."""

from __future__ import annotations

import logging
import threading
from typing import Any

from dyninfer.engines.trt.library import Library

logger = logging.getLogger("dyninfer.tensorrt")


class LogCollector:
    """Keeps errors and warnings in the order they came; several threads may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: list[str] = []
        self._warnings: list[str] = []

    def add(self, message: str, *, error: bool) -> None:
        """Note one message."""
        line = " ".join(message.split())
        with self._lock:
            (self._errors if error else self._warnings).append(line)

    @property
    def errors(self) -> tuple[str, ...]:
        """Errors so far."""
        with self._lock:
            return tuple(self._errors)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings so far."""
        with self._lock:
            return tuple(self._warnings)

    def reason(self) -> str:
        """The last error, which is the only place where a failed build says why."""
        return self.errors[-1] if self.errors else "the library gave no reason"


def make_logger(library: Library) -> tuple[Any, LogCollector]:
    """An ``ILogger`` of this library, and where it collects.

    The logger must stay alive as long as anything that was made with it.
    """
    base: Any = library.module.ILogger
    collector = LogCollector()

    class Logger(base):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                collector.add(msg, error=True)
                logger.debug("%s", msg)
            elif severity == base.WARNING:
                collector.add(msg, error=False)
                logger.debug("%s", msg)

    return Logger(), collector
