"""Policies in the user's terms: a share of images, milliseconds, frames per second, accuracy."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dyninfer.calibration import Calibration
from dyninfer.policy import Policy


@runtime_checkable
class Target(Protocol):
    """What a user asks for; a calibration turns it into a policy."""

    @property
    def needs_times(self) -> bool:
        """Whether the calibration's milliseconds are used, which hold for one processor only."""
        ...

    def resolve(self, calibration: Calibration) -> Policy:
        """The policy that meets the target on the calibration's images.

        Raises:
            PolicyError: it cannot be met; the message says why and what can be had.
        """
        ...
