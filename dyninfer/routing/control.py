"""The policy that holds a goal on the stream: ``control_law`` behind a lock."""

from __future__ import annotations

import threading

import numpy.typing as npt

from dyninfer.errors import PolicyError
from dyninfer.routing.control_law import (
    EXITS,
    ControllerState,
    ControlSettings,
    decide,
    next_threshold,
    observe,
)
from dyninfer.types import BoolArray, Float32Array


class Controller:
    """A policy for cascades of two exits that holds its target while images and times drift.

    Any number of threads may ask it at once. All it knows is in :attr:`state`, an immutable
    value that is replaced under a lock.
    """

    def __init__(self, settings: ControlSettings, state: ControllerState, title: str) -> None:
        self.settings = settings
        self._title = title
        self._lock = threading.Lock()
        self._state = state

    def __str__(self) -> str:
        return self._title

    def __repr__(self) -> str:
        return f"<Controller: {self._title}>"

    @property
    def state(self) -> ControllerState:
        """What it knows now."""
        return self._state

    @property
    def threshold(self) -> float:
        """The threshold that the next image meets."""
        return next_threshold(self.settings, self._state)

    def restore(self, state: ControllerState) -> None:
        """Go on from an earlier state, for example one saved as JSON before a restart.

        Raises:
            PolicyError: it is the state of a controller that counts something else.
        """
        if state.cost is not self.settings.cost:
            raise PolicyError(
                f"the state counts {state.cost.value!r}, expected that of a controller that "
                f"counts {self.settings.cost.value!r}"
            )
        with self._lock:
            self._state = state

    @property
    def needs_router(self) -> bool:
        """True: the easiness decides."""
        return True

    def continues(self, easiness: Float32Array, _exit_index: int) -> BoolArray:
        """See :class:`dyninfer.Policy`; each image also moves the state."""
        with self._lock:
            hard, self._state = decide(self.settings, self._state, easiness)
        return hard

    def observe(self, exit_index: npt.ArrayLike, ms: npt.ArrayLike) -> None:
        """Say what decided images did cost: (N,) exits they left at and (N,) milliseconds.

        NaN is a time that was not measured: the image then counts with the expected one.
        """
        with self._lock:
            self._state = observe(self.settings, self._state, exit_index, ms)

    def check_exits(self, exits: int) -> None:
        """Refuse cascades of more or fewer than two exits."""
        if exits != EXITS:
            raise PolicyError(
                f"adaptive control was asked for a cascade of {exits} exits, expected "
                f"{EXITS}; use the same target without adaptive"
            )
