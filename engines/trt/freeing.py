"""Freeing many things on a GPU that may refuse some of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dyninfer.errors import EngineRunError


class Freeing:
    """Runs every step of a clean-up, whatever CUDA says to the others.

    On leaving, the first refusal is raised; what was refused is the process's until it ends.
    ``active`` makes the GPU current around all of it, and may be refused as well.
    """

    def __init__(self, active: AbstractContextManager[None] | None = None) -> None:
        self._active = active or nullcontext()
        self._first: EngineRunError | None = None

    def run(self, step: Callable[..., object], *arguments: Any) -> None:
        """One step; an EngineRunError waits until all are done."""
        try:
            step(*arguments)
        except EngineRunError as error:  # which would keep alive what it met on its way
            self._first = self._first or EngineRunError(str(error))

    def __enter__(self) -> Freeing:
        try:
            self._active.__enter__()
        except EngineRunError as error:
            self._first, self._active = EngineRunError(str(error)), nullcontext()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.run(self._active.__exit__, kind, *rest)
        if kind is None and self._first is not None:
            raise self._first
