"""The policy that holds a goal on the stream: ``control_law`` behind a lock."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.manifest import EASINESS
from dyninfer.errors import PolicyError
from dyninfer.forks import tell_after_fork
from dyninfer.routing.control_law import (
    EXITS,
    ControllerState,
    ControlSettings,
    Cost,
    decide,
    initial_state,
    next_threshold,
    observe,
)
from dyninfer.routing.policy import DecisionPoint, check_signals
from dyninfer.routing.thresholds import SEND_NONE
from dyninfer.types import Float32Array, Int64Array


class Controller:
    """A policy for cascades of two exits that holds its goal while images and times drift.

    Any number of threads may ask it at once. All it knows is in :attr:`state`, an immutable
    value that is replaced under a lock.
    """

    def __init__(self, settings: ControlSettings, state: ControllerState, title: str) -> None:
        self.settings = settings
        self._title = title
        self._lock = threading.RLock()  # a signal's handler may predict, too
        self._state = state
        tell_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: another thread may have held the lock."""
        self._lock = threading.RLock()

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

    def decide(self, easiness: Float32Array, _point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`; each image also moves the state."""
        with self._lock:
            hard, self._state = decide(self.settings, self._state, easiness)
        return hard.astype(np.int64)

    def observe(self, exit_index: npt.ArrayLike, ms: npt.ArrayLike) -> None:
        """Say what decided images did cost: (N,) exits they left at and (N,) milliseconds.

        NaN is a time that was not measured: the image then counts with the expected one.
        """
        with self._lock:
            self._state = observe(self.settings, self._state, exit_index, ms)

    def check(self, points: Sequence[DecisionPoint], _images: int | None) -> None:
        """Refuse routes without an easiness, and cascades of more or fewer than two exits."""
        check_signals(points, (EASINESS,), self)
        check_exits(len(points) + 1)


def start_controller(
    calibration: Calibration,
    cost: Cost,
    mean_cost: float,
    exit_costs: tuple[float, float],
    title: str,
    limit_ms: float = math.inf,
) -> Controller:
    """A controller that starts from the calibration's easiness and stays where it is certified.

    Raises:
        PolicyError: the cascade has more than two exits, or a chooser decides.
    """
    if calibration.choice_scores:
        raise PolicyError(
            f"{title} cannot be held: adaptive control is for cascades of two exits, and a chooser "
            "decides here; use the same goal without adaptive"
        )
    check_exits(len(calibration.exit_ms))
    least = calibration.certificate.threshold if calibration.certificate else SEND_NONE
    settings = ControlSettings(cost, mean_cost, limit_ms, least)
    state = initial_state(settings, calibration.easiness_array[0], exit_costs)
    return Controller(settings, state, title)


def check_exits(exits: int) -> None:
    """Refuse cascades of more or fewer than two exits."""
    if exits != EXITS:
        raise PolicyError(
            f"adaptive control was asked for a cascade of {exits} exits, expected "
            f"{EXITS}; use the same goal without adaptive"
        )
