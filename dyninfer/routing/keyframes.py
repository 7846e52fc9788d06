"""Running the engines for some frames of a stream alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dyninfer.errors import PolicyError
from dyninfer.routing.goals import Goal
from dyninfer.routing.latency import FramesPerSecond
from dyninfer.routing.policy import Policy
from dyninfer.routing.previous import PreviousFrame
from dyninfer.types import is_whole, shown


@dataclass(frozen=True)
class EveryNth:
    """The engines run for one frame in ``n``; a tracker answers those in between without them.

    For ``policy`` of :meth:`dyninfer.Detector.stream` alone. The first frame is one that is run.
    What was found in it is moved to where the tracker expects it; results say ``predicted`` then.
    What appears in between is found up to ``n - 1`` frames later.

    Args:
        n: a whole number from 1 up.
        policy: decides on the frames that are run; None for the detector's own. Milliseconds
            hold for each of them, and so on average over all the more. A rate counts all
            frames of the stream, so that those that are run may take ``n`` times as long.

    Raises:
        PolicyError: ``n`` is something else, or the policy is none.
    """

    n: int
    policy: Policy | Goal | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.n, 1):
            raise PolicyError(f"n is {shown(self.n)}, expected a whole number of frames from 1 up")
        policy = self.policy
        decides = hasattr(policy, "decide") or isinstance(policy, Goal)
        if policy is not None and (isinstance(policy, type) or not decides):
            raise PolicyError(
                f"EveryNth decides as {shown(policy)} would, expected a policy or a goal such as "
                "Threshold(0.5) or LatencyBudget(20)"
            )

    def __str__(self) -> str:
        policy = "" if self.policy is None else f"{self.policy}, "
        return f"{policy}one frame in {self.n}"

    def of_those_run(self) -> Policy | Goal | None:
        """The policy of the frames that are run."""
        policy = self.policy
        if isinstance(policy, PreviousFrame):
            return policy.deciding_by(self._of_rate(policy.policy))
        return policy if policy is None else self._of_rate(policy)

    def _of_rate(self, policy: Policy | Goal) -> Policy | Goal:
        if isinstance(policy, FramesPerSecond):
            return replace(policy, fps=policy.fps / self.n)
        return policy
