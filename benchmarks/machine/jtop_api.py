"""What is used of jetson-stats (``jtop``), where the user has it and its service runs.

It is optional and never a dependency of dyninfer: a Jetson without it is described from files. The
names below are those of version 7.2.2, read in its source; nothing here was run on a Jetson.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

Jtop = Any
"""A connection to the service, which serves as a context.

Read of it: ``board["hardware"]``, ``nvpmodel.name`` and ``jetson_clocks.get_enable()`` (either may
be None), ``power["tot"]`` with ``power`` in mW, and ``ok(spin=True)``, which raises what broke it.
"""
PATIENCE_S = 15.0
"""jtop waits without end for a service that hangs, and some seconds for the system's libraries."""


def load_jtop() -> tuple[Callable[[], Jtop] | None, str]:
    """What opens a connection, and the version; or None and why there is none."""
    try:
        module = importlib.import_module("jtop")
    except ImportError:
        return None, "jetson-stats is not installed"
    return module.jtop, str(getattr(module, "__version__", ""))


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
