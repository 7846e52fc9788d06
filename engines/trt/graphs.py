"""CUDA graphs: what a stage enqueues, recorded once and launched as a whole."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from dyninfer.engines.trt.cuda import Cuda
from dyninfer.errors import EngineRunError

logger = logging.getLogger("dyninfer")


class GraphMaker:
    """Captures graphs of one stage until that fails once; then the stage runs without.

    Args:
        cuda: the GPU.
        stage: name, for the message.
    """

    def __init__(self, cuda: Cuda, stage: str) -> None:
        self._cuda = cuda
        self._stage = stage
        self._lock = threading.Lock()
        self._usable = cuda.has_graphs
        self.count = 0

    @property
    def usable(self) -> bool:
        """Whether graphs are there and none has failed yet."""
        return self._usable

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any | None:
        """The graph of what ``enqueue`` puts on the stream, or None if it cannot be captured.

        Nothing runs. ``enqueue`` must have run once before: engines finish their preparations
        in their first run, and those cannot be captured.
        """
        try:
            graph = self._capture(stream, enqueue)
        except EngineRunError as error:
            self._give_up(str(error))
            return None
        with self._lock:
            self.count += 1
        return graph

    def _capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        self._cuda.begin_capture(stream)
        try:
            enqueue()
        except BaseException:
            # the capture is broken, and ending it says so; it is what sets the stream free
            with contextlib.suppress(EngineRunError):
                self._cuda.destroy_graph(self._cuda.end_capture(stream))
            raise
        return self._cuda.end_capture(stream)

    def _give_up(self, reason: str) -> None:
        with self._lock:
            first, self._usable = self._usable, False
        if first:
            logger.warning(
                "stage %r runs without a CUDA graph: %s (not reported again)", self._stage, reason
            )
