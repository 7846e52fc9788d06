"""Routing a video's frame by the frames before it, so that nobody waits for its own router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS
from dyninfer.errors import PolicyError
from dyninfer.routing.goals import Goal, check_number
from dyninfer.routing.policy import (
    Blind,
    DecisionPoint,
    Later,
    Observer,
    Particular,
    Policy,
    check_signals,
)
from dyninfer.types import Float32Array, Float64Array, Int64Array, is_whole, shown


class _Memory(NamedTuple):
    """What is known at a decision: the smoothed signal, and the last outcome and its age."""

    signal: Float32Array
    outcome: int = -1
    frames: int = 0


class PreviousFrame(Later):
    """Each frame takes the way on which another policy would send the frames before it.

    The way is known before anything runs: on a GPU the host never waits for the router, whose
    verdict on a frame arrives with its detections and counts for the next one. Frames of one
    stream follow each other closely; where they do not, as after a cut, one frame takes the wrong
    way. The first frame, and the first after :meth:`reset`, takes the dearest one.

    It is for one stream: give every stream its own, as ``policy`` of its calls, and call from one
    thread at a time. Frames of one call are all decided by those before the call.

    Args:
        policy: decides, as if the frames before were the frame itself; one that reads the router,
            or a goal, such as ``HardFraction(0.3)`` or ``LatencyBudget(20)``, which is held as by
            itself on average.
        smoothing: share of its former value that the remembered signal keeps with each new
            frame, in [0, 1): 0 for the last frame alone, 0.9 for about the last ten.
        hold: frames that a way is kept for at least once it has been taken, which keeps a signal
            at a threshold from switching with every frame.

    Raises:
        PolicyError: the policy reads no signal, or an argument is out of range.
    """

    def __init__(self, policy: Policy | Goal, *, smoothing: float = 0.0, hold: int = 1) -> None:
        decides = hasattr(policy, "decide") or isinstance(policy, Goal)
        if not decides or isinstance(policy, (type, Blind)):
            raise PolicyError(
                f"PreviousFrame decides as {shown(policy)} would, expected a policy that reads the "
                "router, such as Threshold(0.5) or HardFraction(0.3)"
            )
        check_number("smoothing", smoothing, 0, 0.9999, "0.5")
        if not is_whole(hold, 1):
            raise PolicyError(f"hold is {shown(hold)}, expected a whole number of frames from 1 up")
        self.policy = policy
        self.smoothing = float(smoothing)
        self.hold = hold
        self._memories: dict[int, _Memory] = {}

    def __str__(self) -> str:
        return f"{self.policy}, by the previous frame"

    def __repr__(self) -> str:
        return f"PreviousFrame({self.policy!r}, smoothing={self.smoothing:g}, hold={self.hold})"

    def deciding_by(self, policy: Policy | Goal) -> PreviousFrame:
        """The same, with what its goal came to; what it remembers is shared by both."""
        found = PreviousFrame(policy, smoothing=self.smoothing, hold=self.hold)
        found._memories = self._memories
        return found

    def reset(self) -> None:
        """Forget the frames so far, as where another stream or scene begins."""
        self._memories.clear()

    def decide(self, _signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`."""
        memory, count = self._memories.get(point.index), len(point.images)
        if memory is None:
            return np.full(count, point.by_cost[-1])
        policy: Any = self.policy
        wanted = policy.decide(np.repeat(memory.signal[None], count, axis=0), point)
        outcomes = np.empty(count, np.int64)
        for place, outcome in enumerate(wanted.tolist()):
            if outcome != memory.outcome and memory.frames >= self.hold:
                memory = memory._replace(outcome=outcome, frames=0)
            memory = memory._replace(frames=memory.frames + 1)
            outcomes[place] = memory.outcome
        self._memories[point.index] = memory
        return outcomes

    def learn(self, signal: Float32Array, point: DecisionPoint) -> None:
        """See :class:`dyninfer.routing.policy.Later`."""
        for value in signal:
            memory = self._memories.get(point.index)
            if memory is None:
                memory = _Memory(value, frames=self.hold)  # whatever comes first may be taken
            elif np.isnan(value).any() or np.isnan(memory.signal).any():
                memory = memory._replace(signal=value)  # a mean with NaN would never recover
            else:
                mean = self.smoothing * memory.signal + (1 - self.smoothing) * value
                memory = memory._replace(signal=np.asarray(mean, np.float32))
            self._memories[point.index] = memory

    def observe(self, exit_indices: Int64Array, ms: Float64Array) -> None:
        """See :class:`dyninfer.routing.policy.Observer`: online control learns on."""
        if isinstance(self.policy, Observer):
            self.policy.observe(exit_indices, ms)

    def check(self, points: Sequence[DecisionPoint], images: int | None) -> None:
        """Refuse a route that decides nothing, or that the policy does not fit."""
        check_signals(points, (EASINESS, CHOICE_SCORES), self)
        if isinstance(self.policy, Particular):
            self.policy.check(points, images)
