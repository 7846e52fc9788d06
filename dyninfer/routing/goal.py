"""What targets share: their protocol, the start of a controller, checks of arguments."""

from __future__ import annotations

import math
from numbers import Real
from typing import Protocol, runtime_checkable

from dyninfer.bundle.calibration import Calibration
from dyninfer.errors import PolicyError
from dyninfer.routing.control import Controller
from dyninfer.routing.control_law import ControlSettings, initial_state
from dyninfer.routing.policy import Policy
from dyninfer.routing.thresholds import SEND_NONE


@runtime_checkable
class Target(Protocol):
    """Something to hold, that a calibration turns into a policy."""

    @property
    def needs_times(self) -> bool:
        """Whether the calibration's milliseconds must be those of this processor."""
        ...

    def resolve(self, calibration: Calibration, /) -> Policy:
        """The policy that holds it.

        Raises:
            PolicyError: it cannot be held, by the calibration's figures, or they are missing.
        """
        ...


def start_controller(
    calibration: Calibration,
    settings: ControlSettings,
    exit_costs: tuple[float, float],
    title: str,
) -> Controller:
    """A controller that starts from the calibration's easiness.

    Raises:
        PolicyError: the cascade has more than two exits.
    """
    state = initial_state(settings, calibration.easiness_array[0], exit_costs)
    controller = Controller(settings, state, title)
    controller.check_exits(len(calibration.exit_ms))
    return controller


def certified_threshold(calibration: Calibration) -> float:
    """The lowest threshold that an adaptive target may use."""
    return calibration.certificate.threshold if calibration.certificate else SEND_NONE


def describe_setting(asked: Policy | Target, active: Policy) -> str:
    """What was asked for and, where that is a target, the threshold that it came to."""
    if asked is active:
        return str(asked)
    if isinstance(active, Controller):
        return f"{asked}: threshold {active.threshold:.4g} by now"
    return f"{asked}: {active}"


def check_number(
    what: str, value: object, low: float, high: float, example: str, *, above: bool = False
) -> None:
    """Refuse what is no finite number in [low, high], or with ``above`` in (low, high]."""
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not low <= number <= high or math.isinf(number) or (above and number == low):
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"above {low:g}"
        raise PolicyError(f"{what} is {value!r}, expected a number {span}, such as {example}")


def check_flag(adaptive: object) -> None:
    """Refuse anything but True and False."""
    if not isinstance(adaptive, bool):
        raise PolicyError(f"adaptive is {adaptive!r}, expected True or False")


def ending_of(adaptive: bool) -> str:
    """What an adaptive target adds to its description."""
    return ", adaptive" if adaptive else ""
