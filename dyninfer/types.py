"""Element types of arrays that travel through the whole package, and numbers of callers."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]


def as_float(value: object) -> float:
    """A caller's number, NaN where it is none: a text, a truth value, 10^400."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Whether a caller's value is a whole number from ``least`` up; no truth value is one."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def shown(value: object) -> str:
    """What a caller gave, for a message: Python refuses to print numbers of over 4,300 digits."""
    try:
        text = repr(value)
    except ValueError:
        return f"{type(value).__name__} of more digits than can be shown"
    return text if len(text) <= 200 else f"{text[:200]}..."
