"""How many threads a stage computes with on a CPU."""

from __future__ import annotations

import math
from typing import Any, Literal

from dyninfer.bundle.manifest import Stage
from dyninfer.errors import InputError
from dyninfer.types import is_whole, shown

SHARED: Literal["shared"] = "shared"
Threads = int | Literal["shared"] | None
"""Of each stage; None for one on every core, :data:`SHARED` for a pool of all in the process."""
MOST = 256
TINY_MACS = 1_000_000
"""Of two cores, one alone took 0.6 to 1.0 of the time for routers of 0.03 to 0.5 million, repeated
and every 20 and 100 ms behind work that had swept the caches; 1.05 to 1.4 for those of 2.1 and 4.7
million, as that of full-size Dy-YOLOv7 is: they read so many weights. The embedded model's head, 19
million in convolutions, made a call 1.1 times as long when it had one thread."""
TINY_VALUES = 65_536


def check_threads(threads: Any) -> Threads:
    """``threads`` itself.

    Raises:
        InputError: it is no whole number from 1 to :data:`MOST`, nor ``"shared"``, nor None.
    """
    if threads is None or threads == SHARED:
        return threads  # type: ignore[no-any-return]
    if not is_whole(threads, 1) or threads > MOST:
        raise InputError(
            f"threads is {shown(threads)}, expected a whole number from 1 to {MOST}, or {SHARED!r} "
            "for one pool of the whole process"
        )
    return threads


def is_tiny(stage: Stage) -> bool:
    """Whether a stage is over sooner than a second thread is awake, as small routers are.

    Its inputs are looked at as well: what moves and compares values multiplies none.
    """
    shapes = [spec.shape_for(1) for spec in stage.inputs]
    values = [math.prod(shape) for shape in shapes if shape is not None]
    known = len(values) == len(shapes)
    return stage.macs <= TINY_MACS and known and sum(values) <= TINY_VALUES
