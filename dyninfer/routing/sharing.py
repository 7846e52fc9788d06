"""One budget for many streams: what each is sure of, and where the rest does most good.

Pure functions; times in seconds of the streams' clock, work in milliseconds.

A budget of B ms a second is split by a fairness f: each of n streams earns f * B / n ms a second of
its own, which pay for an answer to one of its frames; what it has beyond the dearest one, and the
rest of the budget, lies in a pot from which the greatest expected gain per millisecond is paid. So
no stream with frames waits longer for an answer than it takes to earn the dearest one,
c * n / (f * B) seconds for one of c ms, and for the round that is under way.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dyninfer.types import Float64Array

MOST_SAVED_S = 1.0
"""Of the whole budget, the pot keeps at most what this long earns, so that quiet times do not pay
for a burst later; and owes at most as much."""


@dataclass(frozen=True)
class Offer:
    """What a stream's next frame would cost on each way, and what that would gain.

    Attributes:
        ms: (ways,) expected milliseconds, above 0.
        gain: (ways,) expected gain, at least 0, in one unit for all streams.
    """

    ms: Sequence[float]
    gain: Sequence[float]


@dataclass(frozen=True)
class Ledger:
    """What is earned and not yet spent, in milliseconds: each stream's own, and in the pot."""

    own: Mapping[str, float]
    pot: float = 0.0

    def earn(
        self, seconds: float, budget: float, fairness: float, dearest: Mapping[str, float]
    ) -> Ledger:
        """After some time of ``budget`` ms a second; a stream keeps its dearest answer's price."""
        each = seconds * budget * fairness / max(1, len(self.own))
        own, pot = {}, self.pot + seconds * budget * (1 - fairness)
        for name, saved in self.own.items():
            own[name] = min(saved + each, max(dearest[name], saved))
            pot += saved + each - own[name]
        most, first = MOST_SAVED_S * budget, sum(dearest[name] for name in own)
        return Ledger(own, min(max(pot, -most - first), max(most, first)))

    def advance(self, dearest_ms: float) -> Ledger:
        """What pays for every stream's first answer, as a debt of the pot's."""
        own = dict.fromkeys(self.own, dearest_ms)
        return Ledger(own, self.pot - len(own) * dearest_ms)

    def settle(self, expected_ms: float, spent_ms: float) -> Ledger:
        """What was spent otherwise than expected is the pot's."""
        return replace(self, pot=self.pot + expected_ms - spent_ms)

    def without(self, name: str) -> Ledger:
        """A stream has ended: what it saved is for all."""
        own = {other: saved for other, saved in self.own.items() if other != name}
        return Ledger(own, self.pot + self.own[name])


def share_out(ledger: Ledger, offers: Mapping[str, Offer]) -> tuple[dict[str, int], Ledger]:
    """Which streams' frames are answered now, each on which way, and what is left.

    A stream that can pay by itself what gains it most per millisecond takes that, and one that can
    pay any way the best, whether or not it gains anything. Then the pot pays step by step for
    whatever gains most per millisecond: an answer, or a better way. Ways that gain no more
    than cheaper ones, or less per millisecond than the step after them, are no steps.
    """
    own, pot, chosen = dict(ledger.own), ledger.pot, dict[str, int]()
    steps = {name: _steps(offer) for name, offer in offers.items()}
    waiting: list[tuple[float, str, int]] = []
    for name, offer in offers.items():
        first = _paid_by_itself(offer, steps[name], own[name])
        if first is not None:
            own[name] -= offer.ms[first]
            chosen[name] = first
        _push_next(waiting, name, offer, steps[name], chosen.get(name))
    while waiting:
        _, name, way = heapq.heappop(waiting)
        offer, before = offers[name], chosen.get(name)
        price = offer.ms[way] - (0.0 if before is None else offer.ms[before])
        if price <= pot:
            pot -= price
            chosen[name] = way
            _push_next(waiting, name, offer, steps[name], way)
        elif before is None and (less := _best_within(offer, pot)) is not None:
            pot -= offer.ms[less]  # an answer at least
            chosen[name] = less
    return chosen, Ledger(own, pot)


def _steps(offer: Offer) -> list[int]:
    """Ways by rising price whose gain per millisecond falls from each to the next."""
    hull: list[int] = []
    for way in sorted(range(len(offer.ms)), key=lambda way: (offer.ms[way], -offer.gain[way])):
        if hull and offer.gain[way] <= offer.gain[hull[-1]]:
            continue
        while hull and _slope(offer, hull[-2] if len(hull) > 1 else None, hull[-1]) <= _slope(
            offer, hull[-1], way
        ):
            hull.pop()
        hull.append(way)
    return hull


def _slope(offer: Offer, before: int | None, way: int) -> float:
    """Gain per millisecond of going on from one way, or from no answer, to another."""
    ms, gain = (0.0, 0.0) if before is None else (offer.ms[before], offer.gain[before])
    return (offer.gain[way] - gain) / max(offer.ms[way] - ms, 1e-9)


def _push_next(
    waiting: list[tuple[float, str, int]],
    name: str,
    offer: Offer,
    steps: Sequence[int],
    before: int | None,
) -> None:
    """The cheapest step above what a stream has already."""
    floor = 0.0 if before is None else offer.ms[before]
    for way in steps:
        gained = offer.gain[way] - (0.0 if before is None else offer.gain[before])
        if offer.ms[way] > floor and gained > 0:
            heapq.heappush(waiting, (-_slope(offer, before, way), name, way))
            return


def _paid_by_itself(offer: Offer, steps: Sequence[int], saved: float) -> int | None:
    if saved >= max(offer.ms):
        return max(range(len(offer.ms)), key=lambda way: (offer.gain[way], offer.ms[way]))
    first = next((way for way in steps if offer.gain[way] > 0), None)
    return first if first is not None and saved >= offer.ms[first] else None


def _best_within(offer: Offer, pot: float) -> int | None:
    """The way of greatest gain that can be paid, if any gains something."""
    paid = [way for way, ms in enumerate(offer.ms) if ms <= pot and offer.gain[way] > 0]
    return max(paid, key=lambda way: (offer.gain[way], -offer.ms[way]), default=None)


def longest_wait_s(streams: int, budget: float, fairness: float, dearest_ms: float) -> float:
    """Seconds after which a stream that has frames is answered again at the latest.

    To this comes the time until its next frame, and the round under way.
    """
    return streams * dearest_ms / (fairness * budget)


def losses_near(
    easiness: Float64Array, losses: Float64Array, value: float, share: float = 0.1
) -> Float64Array:
    """(ways,) expected loss of an image of this easiness, from images (N,) of a calibration.

    The mean of ``losses`` (ways - 1, N) over the tenth of the images whose ``easiness`` (N,) is
    nearest, at least five; the hardest way, which comes last, loses nothing.
    """
    count = min(len(easiness), max(5, round(share * len(easiness))))
    near = np.argsort(np.abs(easiness - value), kind="stable")[:count]
    return np.append(losses[:, near].mean(axis=1), 0.0)
