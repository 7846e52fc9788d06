"""What is used of jetson-stats (``jtop``), where the user has it and its service runs.

It is optional and never a dependency of dyninfer: a Jetson without it is described from files. The
names below are those of version 7.2.2, read in its source; nothing here was run on a Jetson.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, cast

PATIENCE_S = 15.0
"""jtop waits without end for a service that hangs, and some seconds for the system's libraries."""


class PowerMode(Protocol):
    """The nvpmodel mode that is set."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def id(self) -> int: ...  # noqa: D102


class JetsonClocks(Protocol):
    """Whether jetson_clocks holds the clocks at their maximum."""

    def get_enable(self) -> bool: ...  # noqa: D102


class Jtop(Protocol):
    """A connection to the service; it serves as a context."""

    @property
    def board(self) -> Mapping[str, Any]:
        """``hardware`` -> ``Model``, ``Module``, ``L4T``, ``Jetpack``, and a serial number."""
        ...

    @property
    def nvpmodel(self) -> PowerMode | None:
        """None where the board has no power modes."""
        ...

    @property
    def jetson_clocks(self) -> JetsonClocks | None:
        """None where the tool is not installed."""
        ...

    @property
    def power(self) -> Mapping[str, Any]:
        """``tot`` -> ``power`` in mW, and ``name`` where one rail is the total."""
        ...

    def ok(self, spin: bool = False) -> bool:
        """Whether the connection holds; raises what broke it. Does not wait if ``spin``."""
        ...

    def __enter__(self) -> Jtop: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> object: ...

    def close(self) -> None:
        """End the connection."""
        ...


def load_jtop() -> tuple[Callable[[], Jtop] | None, str]:
    """What opens a connection, and the version; or None and why there is none."""
    try:
        module = importlib.import_module("jtop")
    except ImportError:
        return None, "jetson-stats is not installed"
    return cast(Callable[[], Jtop], module.jtop), str(getattr(module, "__version__", ""))


def within(seconds: float, act: Callable[[], Any]) -> tuple[Any, str]:
    """What an act in a thread of its own gives, or None and why it gave nothing in time.

    An exception is turned into its first line: jtop's say over several what to install.
    """
    found: list[Any] = []
    failed: list[str] = []

    def run() -> None:
        try:
            found.append(act())
        except Exception as error:  # whatever goes wrong in the service comes back as it was raised
            failed.append((str(error) or type(error).__name__).splitlines()[0])

    thread = threading.Thread(target=run, daemon=True, name="jtop")
    thread.start()
    thread.join(seconds)
    if found:
        return found[0], ""
    return None, failed[0] if failed else f"no answer within {seconds:g} s"
