"""Who decides which images go on to the next exit.

A policy is a value: it is never changed, only replaced (``detector.policy = ...``), so a change
takes effect at the next batch and is safe while another thread predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dyninfer.errors import PolicyError
from dyninfer.types import BoolArray, Float32Array, Float64Array, Int64Array


def route(easiness: Float32Array, threshold: float) -> BoolArray:
    """Which images continue to the next exit: those with ``easiness < threshold``, strictly.

    An easiness that is NaN counts as hard, so that a broken router costs time and not accuracy.

    Args:
        easiness: (N,) in [0, 1].
        threshold: 0 lets every image leave, anything above 1 none.

    Returns:
        (N,) bool, True where the next exit runs.

    Source of the comparison: the published DynamicDet code, whose ``--dy-thres`` this equals
    (Lin et al., CVPR 2023, section 3.4, variable-speed inference).
    """
    return ~(easiness >= threshold)


@runtime_checkable
class Policy(Protocol):
    """Anything that splits a batch by its easiness."""

    @property
    def needs_router(self) -> bool:
        """Whether the decision reads the easiness at all."""
        ...

    def continues(self, easiness: Float32Array, exit_index: int, /) -> BoolArray:
        """Mask (N,) of the images that go on to the exit after ``exit_index``.

        ``easiness`` is (N,); where an exit has no router it is all NaN, and only policies with
        ``needs_router`` False are asked.
        """
        ...

    def check_exits(self, exits: int) -> None:
        """Raise PolicyError where the policy does not fit a cascade of ``exits`` exits."""
        ...


@runtime_checkable
class Observer(Protocol):
    """A policy that learns from the images it has routed, as online control does."""

    def observe(self, exit_indices: Int64Array, ms: Float64Array, /) -> None:
        """Take note of images (N,): the exit each left at and the milliseconds it took.

        Milliseconds are those from the decoded picture to detections; NaN where they were not
        measured, as of prepared tensors.
        """
        ...


@dataclass(frozen=True)
class Threshold:
    """Images below ``value`` continue; a sequence gives every exit but the last its own value.

    Raises:
        PolicyError: a value is NaN or negative, or the sequence is empty.
    """

    value: float | Sequence[float]

    def __post_init__(self) -> None:
        many = isinstance(self.value, Sequence) and not isinstance(self.value, str)
        given: Any = self.value
        values = tuple(given) if many else (given,)
        numbers = all(isinstance(value, Real) for value in values)
        if not values or not numbers or any(math.isnan(v) or v < 0 for v in values):
            raise PolicyError(
                f"a threshold is {self.value!r}, expected a number from 0 (all images easy) "
                "to just above 1 (all hard), or one for each exit but the last"
            )
        # a list of the caller's could change later
        object.__setattr__(self, "value", values if many else float(values[0]))

    def __str__(self) -> str:
        values = ", ".join(f"{value:.4g}" for value in self._values())
        return f"threshold {values}"

    def _values(self) -> tuple[float, ...]:
        if isinstance(self.value, Sequence):
            return tuple(float(value) for value in self.value)
        return (float(self.value),)

    @property
    def needs_router(self) -> bool:
        """True: the easiness decides."""
        return True

    def continues(self, easiness: Float32Array, exit_index: int) -> BoolArray:
        """See :class:`Policy`."""
        values = self._values()
        return route(easiness, values[exit_index] if len(values) > 1 else values[0])

    def check_exits(self, exits: int) -> None:
        """Refuse a sequence of the wrong length for a cascade of ``exits`` exits."""
        values = self._values()
        if isinstance(self.value, Sequence) and len(values) != exits - 1:
            raise PolicyError(
                f"{len(values)} thresholds were given, expected {exits - 1}: "
                f"one for each of the {exits} exits but the last"
            )


@dataclass(frozen=True)
class LeaveAt:
    """Every image leaves at one exit, whatever its easiness: for measuring that exit.

    Raises:
        PolicyError: ``exit_index`` is negative or no whole number.
    """

    exit_index: int

    def __post_init__(self) -> None:
        if not isinstance(self.exit_index, int) or self.exit_index < 0:
            raise PolicyError(f"an exit is {self.exit_index!r}, expected a whole number from 0 up")

    def __str__(self) -> str:
        return f"every image at exit {self.exit_index}"

    @property
    def needs_router(self) -> bool:
        """False: nothing is read."""
        return False

    def continues(self, easiness: Float32Array, exit_index: int) -> BoolArray:
        """See :class:`Policy`."""
        return np.full(len(easiness), exit_index < self.exit_index)

    def check_exits(self, exits: int) -> None:
        """Refuse an exit that the cascade does not have."""
        if self.exit_index >= exits:
            raise PolicyError(f"there is no exit {self.exit_index}, expected 0 to {exits - 1}")


@dataclass(frozen=True)
class AlwaysEasy:
    """Every image leaves at the first exit, whatever its easiness."""

    def __str__(self) -> str:
        return "every image easy"

    @property
    def needs_router(self) -> bool:
        """False: nothing is read."""
        return False

    def continues(self, easiness: Float32Array, _exit_index: int) -> BoolArray:
        """See :class:`Policy`."""
        return np.zeros(len(easiness), np.bool_)

    def check_exits(self, exits: int) -> None:
        """Fits every cascade."""


@dataclass(frozen=True)
class AlwaysHard:
    """Every image runs through to the last exit, whatever its easiness."""

    def __str__(self) -> str:
        return "every image hard"

    @property
    def needs_router(self) -> bool:
        """False: nothing is read."""
        return False

    def continues(self, easiness: Float32Array, _exit_index: int) -> BoolArray:
        """See :class:`Policy`."""
        return np.ones(len(easiness), np.bool_)

    def check_exits(self, exits: int) -> None:
        """Fits every cascade."""
