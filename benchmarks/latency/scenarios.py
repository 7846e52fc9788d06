"""Which scenarios are run: the product of what was asked for, as far as the bundle allows it.

And the policies that force the ways of images, while all that decides runs and is waited for.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.bundle.manifest import CascadeRoute, Manifest, SelectRoute
from dyninfer.errors import PolicyError
from dyninfer.plain_text import counted
from dyninfer.routing.policy import DecisionPoint, SameForAll
from dyninfer.types import BoolArray, Float32Array, Int64Array

MAX_DENOMINATOR = 1000
_ROUNDING = 1e-9
SHUFFLED = 10
"""Neighbouring calls within which the order is random."""
MIXED = (0.5,)
"""Hard fractions between those of the ends, where nobody says which."""


@dataclass(frozen=True)
class Choices:
    """What to vary.

    Attributes:
        batches: images in a call.
        hard: hard fractions; None for every way, and for those fractions that suit the bundle.
        concurrency: callers at once.
        rates: calls a second, each with batch 1; none for closed loops only.
        decode: also decode pictures from their files, with batch 1 and one caller.
        as_routed: also let the detector's own policy decide; where a chooser does, that is
            measured in any case, since the mixture of its branches is what is used.
    """

    batches: tuple[int, ...] = (1, 8)
    hard: tuple[float, ...] | None = None
    concurrency: tuple[int, ...] = (1,)
    rates: tuple[float, ...] = ()
    decode: bool = False
    as_routed: bool = False


def make_scenarios(manifest: Manifest, choices: Choices, name: str = "") -> tuple[Scenario, ...]:
    """Every scenario once, in the order in which they are shown.

    A refusal calls the bundle ``name``, by default as its manifest does.

    Raises:
        PolicyError: a fraction is asked for that the bundle cannot be made to follow.
    """
    routes = _routes(manifest, choices, name or manifest.name)
    product = [
        replace(route, batch=batch, concurrency=callers)
        for callers in choices.concurrency
        for batch in choices.batches
        for route in routes
    ]
    if choices.decode:
        product += [replace(route, decode=True) for route in routes]
    product += [
        replace(route, concurrency=callers, rate_per_s=rate)
        for rate in choices.rates
        for callers in choices.concurrency
        for route in routes
    ]
    return tuple(dict.fromkeys(product))


def _routes(manifest: Manifest, choices: Choices, name: str) -> tuple[Scenario, ...]:
    """Who decides, and for what, in scenarios of single images."""
    if choices.hard is not None:
        _check_fractions(manifest, choices.hard, name)
        forced = [_fraction(manifest, share) for share in choices.hard]
    else:
        mixable = isinstance(manifest.route, CascadeRoute) and manifest.routed
        ways = [_way(manifest, index) for index in range(len(manifest.ways))]
        mixed = [Scenario(hard_fraction=share) for share in MIXED if mixable]
        forced = [*ways[:-1], *mixed, ways[-1]]
    chosen = isinstance(manifest.route, SelectRoute)
    own = manifest.routed and (choices.as_routed or chosen)
    return (*forced, *([Scenario()] if own else []))


def _way(manifest: Manifest, index: int) -> Scenario:
    """All images on one way; see :attr:`Scenario.way` for the ends of a cascade."""
    last = len(manifest.ways) - 1
    if isinstance(manifest.route, CascadeRoute) and index in (0, last):
        return Scenario(hard_fraction=float(index == last))
    return Scenario(way=manifest.way_names[index])


def _fraction(manifest: Manifest, share: float) -> Scenario:
    if share in (0.0, 1.0):
        return _way(manifest, manifest.ways_by_cost[-1 if share else 0])
    return Scenario(hard_fraction=share)


def _check_fractions(manifest: Manifest, shares: tuple[float, ...], name: str) -> None:
    if len(manifest.ways) == 1 and shares != (1.0,):
        raise PolicyError(
            f"{name} has one exit, so there is no hard fraction to vary; leave --hard out"
        )
    strange = [share for share in shares if share not in (0.0, 1.0)]
    if strange and not manifest.routed:
        raise PolicyError(
            f"{name} has no router, so all images are easy or all hard: a hard "
            f"fraction of {strange[0]:g} is not possible; give --hard 0,100%, or train a "
            "router with dyninfer fit-router"
        )


def as_fraction(value: float) -> Fraction:
    """The share as a ratio of small whole numbers: 0.25 -> 1/4.

    Raises:
        PolicyError: there is none up to :data:`MAX_DENOMINATOR` parts.
    """
    share = Fraction(str(value)).limit_denominator(MAX_DENOMINATOR)
    if not math.isclose(share, value, rel_tol=0, abs_tol=_ROUNDING):
        raise PolicyError(
            f"a hard fraction of {value:g} is finer than 1/{MAX_DENOMINATOR}, which is as fine as "
            "can be forced exactly; give a rounder one"
        )
    return share


def calls_in_period(fraction: float, batch: int) -> int:
    """The smallest number of calls of ``batch`` images that hold the share exactly."""
    return (as_fraction(fraction) * batch).denominator


def hard_rows_by_call(fraction: float, batch: int, seed: int = 0) -> Int64Array:
    """(P,) how many images of each call of a period are hard.

    Each call has ``batch * fraction`` of them, rounded down or up so that the sum never runs more
    than one ahead or behind (Bresenham's line); calls are then shuffled among neighbours, so that
    no period of the caller's, such as a number of pictures that take turns, falls in with it.
    """
    share = as_fraction(fraction) * batch
    edges = [math.floor(share * call) for call in range(share.denominator + 1)]
    counts = np.array([after - before for before, after in pairwise(edges)], np.int64)
    rng = np.random.default_rng(seed)
    for start in range(0, len(counts), SHUFFLED):
        rng.shuffle(counts[start : start + SHUFFLED])
    return counts


def spread_rows(hard: int, batch: int, offset: int) -> BoolArray:
    """(batch,) mask with ``hard`` rows set, evenly apart, turned by ``offset`` rows."""
    mask = np.zeros(batch, np.bool_)
    mask[(offset + np.arange(hard) * batch // max(hard, 1)) % batch] = True
    return mask


@dataclass(frozen=True)
class ForcedWay(SameForAll):
    """Sends every image one way.

    The router or chooser runs and what it says is read, as in life, but does not decide:
    :class:`dyninfer.LeaveAt` would spare that wait.
    """

    way: int

    def __str__(self) -> str:
        return f"every image forced to way {self.way}"

    def decide_one(self, _easiness: float, point: DecisionPoint) -> int:
        """See :class:`dyninfer.routing.policy.OneByOne`."""
        return point.outcome_to(self.way)


class ForcedHard:
    """Sends an exact, evenly spread share of the images the hardest way, the others the easiest.

    What decides runs and is read, as with :class:`ForcedWay`. Which images go on
    is the same in every run. Calls of several threads at once draw from one sequence.

    Args:
        fraction: share in [0, 1] that takes the hardest way.
        batch: images in every call.
        seed: of the order within a period.

    Raises:
        PolicyError: the fraction is not in [0, 1], or too fine.
    """

    def __init__(self, fraction: float, batch: int, seed: int = 0) -> None:
        if not 0 <= fraction <= 1:
            raise PolicyError(f"a hard fraction is {fraction!r}, expected a number from 0 to 1")
        self.fraction = fraction
        self.batch = batch
        self._counts = hard_rows_by_call(fraction, batch, seed)
        self._calls = 0
        self._turns = 0
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.fraction:.4g} of the images hard, forced"

    def decide(self, _signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`; from the second exit on all go on."""
        count = len(point.images)
        if point.index:
            return np.full(count, point.by_cost[-1])
        if count != self.batch:
            raise PolicyError(f"a call has {counted(count, 'image')}, expected {self.batch}")
        with self._lock:
            hard = int(self._counts[self._calls % len(self._counts)])
            offset = self._turns
            self._calls += 1
            self._turns += bool(hard)  # the next call that has hard rows has others
        rows = spread_rows(hard, self.batch, offset)
        outcomes: Int64Array = np.where(rows, point.by_cost[-1], point.by_cost[0])
        return outcomes
