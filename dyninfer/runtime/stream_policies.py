"""Policies that decide for many streams at once, each for the images of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dyninfer.errors import InputError
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Blind, DecisionPoint, Later, Policy
from dyninfer.routing.previous import PreviousFrame
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float32Array, Int64Array


def policies_of(
    detector: Detector,
    names: Sequence[str],
    policy: Policy | Goal | Mapping[str, Policy | Goal] | None,
) -> dict[str, Policy] | None:
    """By stream, each with a memory of its own; None where none is given.

    Raises:
        InputError: they are given by name, and for other streams.
        PolicyError: one does not fit the detector.
    """
    if policy is None:
        return None
    given = policy if isinstance(policy, Mapping) else dict.fromkeys(names, policy)
    if set(given) != set(names):
        raise InputError(
            f"policies are given for {', '.join(map(str, given)) or 'no stream'}, expected one for "
            f"each of {', '.join(names)}"
        )
    return {name: detector.resolve(_own(given[name])) for name in names}


def _own(policy: Policy | Goal) -> Policy | Goal:
    """What remembers frames must not see those of other streams."""
    if not isinstance(policy, PreviousFrame):
        return policy
    return PreviousFrame(policy.policy, smoothing=policy.smoothing, hold=policy.hold)


def each(policies: Sequence[Policy]) -> Policy:
    """A policy for each image of a call, in order."""
    if all(isinstance(policy, Blind) for policy in policies):
        return _EachLater(policies)
    return _Each(policies)


class _Each:
    """A policy for each image of a call."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def decide(self, signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`."""
        outcomes = np.empty(len(point.images), np.int64)
        for place, image in enumerate(point.images.tolist()):
            one, here = signal[place : place + 1], point.of(point.images[place : place + 1])
            policy = self._policies[image]
            outcomes[place] = policy.decide(one, here)[0]
            if isinstance(policy, Later) and not isinstance(self, Later):
                policy.learn(one, here)  # the signal is there, since others wait for it
        return outcomes


class _EachLater(_Each, Later):
    """The same where none of them waits for a signal."""

    def learn(self, signal: Float32Array, point: DecisionPoint) -> None:
        """See :class:`dyninfer.routing.policy.Later`."""
        for place, image in enumerate(point.images.tolist()):
            policy = self._policies[image]
            if isinstance(policy, Later):
                here = point.of(point.images[place : place + 1])
                policy.learn(signal[place : place + 1], here)
