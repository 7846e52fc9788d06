"""What TensorRT says while it works: kept for error messages, passed on to Python's logging."""

from __future__ import annotations

import logging
from typing import Any

from dyninfer.engines.trt.library import Library

logger = logging.getLogger("dyninfer.tensorrt")


class LogCollector:
    """The library's errors in the order they came; several threads may append to them."""

    def __init__(self) -> None:
        self.errors: list[str] = []

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
                collector.errors.append(" ".join(msg.split()))
            elif severity != base.WARNING:
                return
            logger.debug("%s", msg)

    return Logger(), collector
