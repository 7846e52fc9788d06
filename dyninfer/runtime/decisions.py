"""What a decision reads of the images that come to it, and which outcome each of them takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import EASINESS
from dyninfer.errors import InputError, PolicyError
from dyninfer.plain_text import counted
from dyninfer.routing.policy import Policy
from dyninfer.runtime.plan import Decision
from dyninfer.types import Float32Array, Int64Array

_ROUNDING = 1e-3  # of an easiness of 0 or 1, in low precisions


def signal_of(decision: Decision, count: int, values: npt.NDArray[Any]) -> Float32Array:
    """A copy of what ``count`` images were said to be: (N,) from (N,) or (N, 1), or (N, branches).

    An easiness that is none, because the router is broken, is NaN.

    Raises:
        InputError: there are more or fewer values.
    """
    easiness = decision.signal == EASINESS
    if values.size != (count if easiness else count * len(decision.outcomes)):
        expected = _signal_shape(decision, count)
        raise InputError(
            f"the {decision.signal} of {counted(count, 'image')} came as {values.shape}, expected "
            f"{expected}"
        )
    copied: Float32Array = values.astype(np.float32)
    if not easiness:
        return copied.reshape(count, -1)
    if count > 1 or not -_ROUNDING <= copied.item() <= 1 + _ROUNDING:  # NumPy is slow at one
        copied[(copied < -_ROUNDING) | (copied > 1 + _ROUNDING)] = np.nan
    return copied if copied.ndim == 1 else copied.reshape(-1)


def no_signal(decision: Decision, count: int) -> Float32Array:
    """All NaN, as if the values of ``count`` images were; nobody may write to it."""
    return _nan(_signal_shape(decision, count))


@lru_cache(maxsize=64)
def _nan(shape: tuple[int, ...]) -> Float32Array:
    nan = np.full(shape, np.nan, np.float32)
    nan.flags.writeable = False  # it is the same array every time
    return nan


def _signal_shape(decision: Decision, count: int) -> tuple[int, ...]:
    return (count,) if decision.signal == EASINESS else (count, len(decision.outcomes))


def decide(
    policy: Policy, signal: Float32Array, decision: Decision, images: Int64Array
) -> npt.NDArray[Any]:
    """What a policy says of ``images`` (N,), by their positions among those of the call."""
    return np.asarray(policy.decide(signal, decision.point.of(images)))


def only_outcome(chosen: npt.NDArray[Any], outcomes: int, policy: Policy) -> int:
    """The outcome of the only image.

    Raises:
        PolicyError: ``chosen`` is not one outcome.
    """
    if chosen.shape == (1,) and chosen.dtype.kind in "iub":
        outcome: int = chosen.item()
        if 0 <= outcome < outcomes:
            return outcome
    raise _no_outcomes(chosen, 1, outcomes, policy)


def split(
    chosen: npt.NDArray[Any], count: int, outcomes: int, policy: Policy
) -> Sequence[tuple[int, Int64Array | None]]:
    """Outcomes that images take, each with their positions; None for all of them.

    Raises:
        PolicyError: ``chosen`` is not one outcome for each.
    """
    if count == 1:
        return [(only_outcome(chosen, outcomes, policy), None)]
    if chosen.shape == (count,) and chosen.dtype.kind in "iub":
        places = [(outcome, np.flatnonzero(chosen == outcome)) for outcome in range(outcomes)]
        if sum(len(where) for _, where in places) == count:
            return [(k, None if len(w) == count else w) for k, w in places if len(w)]
    raise _no_outcomes(chosen, count, outcomes, policy)


def _no_outcomes(
    chosen: npt.NDArray[Any], count: int, outcomes: int, policy: Policy
) -> PolicyError:
    return PolicyError(
        f"{policy} decided {chosen.tolist()} for {counted(count, 'image')}, expected one outcome "
        f"from 0 to {outcomes - 1} for each"
    )
