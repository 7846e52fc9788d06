"""Who decides which way an image takes.

A policy is a value: it is never changed, only replaced (``detector.policy = ...``), so a change
takes effect at the next batch and is safe while another thread predicts. One may be given for a
single call, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS
from dyninfer.errors import PolicyError
from dyninfer.plain_text import counted
from dyninfer.types import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    as_float,
    is_whole,
    shown,
)

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class DecisionPoint:
    """Where a route decides.

    Attributes:
        index: which of the route's decisions this is, 0 for the first.
        signal: what is known of an image here: ``easiness``, ``choice_scores``, or None where
            there is no router.
        ways: for every outcome, the ways that can still be reached by it. At exit k of a cascade
            outcome 0 leaves there and outcome 1 goes on; at a chooser outcome b is branch b.
        images: (N,) position of each image that is here among those of the call.
        macs: multiply-accumulates of an image that takes each of the route's ways, whether or not
            it can be reached from here; empty where they are not known.
        by_cost: the outcomes, the cheapest first, by ``macs`` at a chooser. At an exit leaving is
            cheaper than going on, and without ``macs`` they stand as they are.
    """

    index: int
    signal: str | None
    ways: tuple[frozenset[int], ...]
    images: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)
    macs: tuple[int, ...] = ()
    by_cost: Int64Array = field(init=False, repr=False, compare=False)
    _outcomes: Int64Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What every batch asks is made once; ``_outcomes`` (ways,) leads to each way."""
        outcomes = np.zeros(1 + max(max(reached) for reached in self.ways), np.int64)
        for outcome, reached in enumerate(self.ways):
            outcomes[list(reached)] = outcome
        order = list(range(len(self.ways)))
        if self.macs and self.signal == CHOICE_SCORES:
            order.sort(key=lambda outcome: min(self.macs[way] for way in self.ways[outcome]))
        object.__setattr__(self, "_outcomes", outcomes)
        object.__setattr__(self, "by_cost", np.array(order))

    def of(self, images: Int64Array) -> DecisionPoint:
        """The same place with these images."""
        point = object.__new__(DecisionPoint)
        point.__dict__.update(self.__dict__, images=images)  # __init__ of frozen ones is slow
        return point

    def outcomes_to(self, ways: Int64Array) -> Int64Array:
        """(N,) outcomes that lead to (N,) ways, all of which can be reached from here."""
        return self._outcomes[ways]

    def outcome_to(self, way: int) -> int:
        """The outcome that leads to a way, which can be reached from here."""
        outcome: int = self._outcomes.item(way)
        return outcome


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
    """Anything that splits a batch at a decision point."""

    def decide(self, signal: Float32Array, point: DecisionPoint, /) -> Int64Array:
        """An outcome (N,) for every image that is here.

        Args:
            signal: easiness (N,), or a chooser's scores (N, branches); all NaN where nothing makes
                it, and for a :class:`Blind` policy.
            point: where this is, and which images are here.
        """
        ...


class Blind:
    """What policies derive from that read no signal: nobody waits for one then."""


class Later(Blind):
    """What policies derive from that are told the signals of a batch when it is over.

    A chooser's scores, too, are computed for them.
    """

    def learn(self, signal: Float32Array, point: DecisionPoint) -> None:
        """Take note of what a decision would have read: easiness (N,), or scores (N, branches).

        Of the images that came to ``point`` in a batch, in their order; NaN where it is broken.
        """
        raise NotImplementedError


class OneByOne:
    """What policies of this package derive from that judge a single image without arrays.

    Right after an engine has run NumPy's functions are in no cache, and take as long as a small
    stage.
    """

    def decide_one(self, easiness: float, point: DecisionPoint) -> int:
        """What ``decide`` says of a single image.

        ``easiness`` may be a NaN for a policy that reads none; ``point.images`` is empty.
        """
        raise NotImplementedError


class SameForAll(OneByOne):
    """What policies derive from that give every image at a decision the same outcome."""

    def decide(self, _signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`Policy`."""
        outcomes = np.empty(len(point.images), np.int64)
        outcomes.fill(self.decide_one(math.nan, point))
        return outcomes


def decider_of_one(policy: Policy) -> Callable[[float, DecisionPoint], int] | None:
    """``policy.decide_one``, if its own class has that; one that derives may decide otherwise."""
    if isinstance(policy, OneByOne) and "decide_one" in type(policy).__dict__:
        return policy.decide_one
    return None


@runtime_checkable
class Particular(Protocol):
    """A policy that does not fit every route."""

    def check(self, points: Sequence[DecisionPoint], images: int | None, /) -> None:
        """Raise PolicyError where it does not fit a route with these decisions.

        ``images`` is how many a call has, where that is known.
        """
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


def count_ways(points: Sequence[DecisionPoint]) -> int:
    """How many ways a route with these decisions has."""
    return 1 + max(
        (way for point in points for reached in point.ways for way in reached), default=0
    )


def hardest_way(points: Sequence[DecisionPoint]) -> int:
    """The way that an image takes where every image is hard, of a route with these decisions."""
    if not points:
        return 0
    last = points[-1]
    hardest: frozenset[int] = last.ways[last.by_cost[-1]]
    return min(hardest)


_SIGNALS = {EASINESS: "an easiness", CHOICE_SCORES: "a chooser's scores"}
_INSTEAD = {
    EASINESS: "Threshold, HardFraction, AlwaysEasy, AlwaysHard or Forced",
    CHOICE_SCORES: "Chosen, CostBias, MacsBudget, LatencyBudget, AlwaysEasy, AlwaysHard or Forced",
}


def check_signals(points: Sequence[DecisionPoint], signals: Sequence[str], policy: object) -> None:
    """Refuse a route whose decisions have none of these signals.

    Raises:
        PolicyError: it has no decision, or one with another signal or none.
    """
    name = type(policy).__name__
    what = " or ".join(_SIGNALS[signal] for signal in signals)
    if not points:
        raise PolicyError(
            f"{name} reads {what}, but this bundle has one way for all images; leave the policy "
            "as it is"
        )
    found = {point.signal for point in points}
    if None in found:
        raise PolicyError(
            f"{name} reads {what}, but this bundle has no router; use AlwaysEasy or AlwaysHard, "
            "or train a router first"
        )
    if not found <= {*signals}:
        others = [signal for signal in found if signal]
        raise PolicyError(
            f"{name} reads {what}, but this bundle decides by {', '.join(others)}; use "
            f"{_INSTEAD[others[0]]}"
        )


@dataclass(frozen=True)
class Threshold(OneByOne):
    """Images below ``value`` continue; a sequence gives every exit but the last its own value.

    Raises:
        PolicyError: a value is NaN or negative, or the sequence is empty.
    """

    value: float | Sequence[float]
    # what an easiness, which is in float32, is compared with
    _in_float32: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        many = isinstance(self.value, Sequence) and not isinstance(self.value, (str, bytes))
        given: Any = self.value
        values = tuple(given) if many else (given,)
        kept = tuple(map(as_float, values))  # a list of the caller's could change later
        if not kept or any(math.isnan(value) or value < 0 for value in kept):
            raise PolicyError(
                f"a threshold is {shown(self.value)}, expected a number from 0 (all images easy) "
                "to just above 1 (all hard), or one for each exit but the last"
            )
        with np.errstate(all="ignore"):  # infinity is as good a number above 1
            rounded = tuple(np.array(kept, np.float64).astype(np.float32).tolist())
        object.__setattr__(self, "value", kept if many else kept[0])
        object.__setattr__(self, "_in_float32", rounded)

    def __str__(self) -> str:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return f"threshold {', '.join(f'{value:.4g}' for value in values)}"

    def decide(self, easiness: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`Policy`."""
        return route(easiness, self._at(point.index)).astype(np.int64)

    def decide_one(self, easiness: float, point: DecisionPoint) -> int:
        """See :class:`OneByOne`."""
        return int(not easiness >= self._at(point.index))

    def _at(self, decision: int) -> float:
        return self._in_float32[decision if isinstance(self.value, tuple) else 0]

    def check(self, points: Sequence[DecisionPoint], _images: int | None) -> None:
        """Refuse a route without routers, and a sequence of the wrong length."""
        check_signals(points, (EASINESS,), self)
        if isinstance(self.value, tuple) and len(self.value) != len(points):
            raise PolicyError(
                f"{counted(len(self.value), 'threshold')} given, expected {len(points)}: one for "
                f"each of the {counted(len(points) + 1, 'exit')} but the last"
            )


@dataclass(frozen=True)
class Chosen:
    """Every image takes the branch to which the chooser gives the largest score.

    Of equal scores the cheapest branch is taken. Scores with a NaN count as hard: the dearest
    branch is taken, so that a broken chooser costs time and not accuracy.
    """

    def __str__(self) -> str:
        return "as chosen"

    def decide(self, scores: npt.NDArray[np.floating], point: DecisionPoint) -> Int64Array:
        """See :class:`Policy`."""
        ranked = scores.take(point.by_cost, axis=1)  # of equal scores argmax takes the first
        chosen: Int64Array = point.by_cost.take(ranked.argmax(axis=1))
        broken = np.isnan(scores)
        if broken.any():
            chosen[broken.any(axis=1)] = point.by_cost[-1]
        return chosen

    def check(self, points: Sequence[DecisionPoint], _images: int | None) -> None:
        """Refuse a route without a chooser."""
        check_signals(points, (CHOICE_SCORES,), self)


@dataclass(frozen=True)
class LeaveAt(SameForAll, Blind):
    """Every image takes one way, whatever its signals: for measuring that exit or branch.

    Raises:
        PolicyError: ``exit_index`` is negative or no whole number.
    """

    exit_index: int

    def __post_init__(self) -> None:
        if not is_whole(self.exit_index, 0):
            raise PolicyError(
                f"an exit is {shown(self.exit_index)}, expected a whole number from 0 up"
            )

    def __str__(self) -> str:
        return f"every image at exit {self.exit_index}"

    def decide_one(self, _easiness: float, point: DecisionPoint) -> int:
        """See :class:`OneByOne`."""
        return point.outcome_to(self.exit_index)

    def check(self, points: Sequence[DecisionPoint], _images: int | None) -> None:
        """Refuse a way that the route does not have."""
        ways = count_ways(points)
        if self.exit_index >= ways:
            raise PolicyError(f"there is no exit {self.exit_index}, expected 0 to {ways - 1}")


@dataclass(frozen=True)
class AlwaysEasy(SameForAll, Blind):
    """Every image takes the cheapest way, in a cascade its first exit, whatever its easiness."""

    def __str__(self) -> str:
        return "every image easy"

    def decide_one(self, _easiness: float, point: DecisionPoint) -> int:
        """See :class:`OneByOne`."""
        outcome: int = point.by_cost.item(0)
        return outcome


@dataclass(frozen=True)
class AlwaysHard(SameForAll, Blind):
    """Every image takes the dearest way, in a cascade its last exit, whatever its easiness."""

    def __str__(self) -> str:
        return "every image hard"

    def decide_one(self, _easiness: float, point: DecisionPoint) -> int:
        """See :class:`OneByOne`."""
        outcome: int = point.by_cost.item(-1)
        return outcome


@dataclass(frozen=True)
class Forced(Blind):
    """A way for each image of a call, known before anything runs.

    For callers that know already: from a video's previous frame, or by a rule of the business.
    Nobody waits for a router then; its easiness is still reported.

    Args:
        ways: ``exit_index`` for each image of the call, in order.

    Raises:
        PolicyError: ``ways`` is no sequence of whole numbers from 0 up.
    """

    ways: Sequence[int]

    def __post_init__(self) -> None:
        given: Any = self.ways
        whole = isinstance(given, (Sequence, np.ndarray)) and not isinstance(given, (str, bytes))
        if not whole or not all(isinstance(way, (int, np.integer)) and way >= 0 for way in given):
            raise PolicyError(
                f"forced ways are {shown(given)}, expected a whole number from 0 up for each "
                "image, such as Forced([0, 1, 0])"
            )
        # a list of the caller's could change later
        object.__setattr__(self, "ways", tuple(int(way) for way in given))

    def __str__(self) -> str:
        return f"forced ways of {counted(len(self.ways), 'image')}"

    def decide(self, _signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`Policy`."""
        if point.images.max(initial=-1) >= len(self.ways):
            raise self._wrong_count(f"more than {len(self.ways)}")
        return point.outcomes_to(np.asarray(self.ways, np.int64)[point.images])

    def check(self, points: Sequence[DecisionPoint], images: int | None) -> None:
        """Refuse a way that the route does not have, and a wrong number of images."""
        ways = count_ways(points)
        if strange := [way for way in self.ways if way >= ways]:
            raise PolicyError(f"there is no exit {strange[0]}, expected 0 to {ways - 1}")
        if images is not None and images != len(self.ways):
            raise self._wrong_count(str(images))

    def _wrong_count(self, images: str) -> PolicyError:
        return PolicyError(
            f"ways are forced for {counted(len(self.ways), 'image')} and the call has {images}; "
            "give one for each image of the call"
        )


def default_policy(points: Sequence[DecisionPoint]) -> Policy:
    """What decides where nobody said anything: the router, the chooser, or the dearest way."""
    signals = {point.signal for point in points}
    if signals == {EASINESS}:
        return Threshold(DEFAULT_THRESHOLD)
    return Chosen() if signals == {CHOICE_SCORES} else AlwaysHard()
