"""One budget for many streams: what each is sure of, and where the rest does most good.

Pure functions; times in seconds of the streams' clock, work in milliseconds.

A budget of B ms a second is split by a fairness f: each of n streams earns f * B / n ms a second of
its own, which pay for answers to its frames; what it has beyond the dearest one, and the rest of
the budget, lies in a pot, which pays what their own savings lack of the answers of greatest
expected gain per millisecond. So no stream with frames waits longer for an answer than it takes to
earn the dearest one, c * n / (f * B) seconds for one of c ms, and for the round that is under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dyninfer.types import Float64Array

MOST_SAVED_S = 1.0
"""Of the whole budget, the pot keeps at most what this long earns, so that quiet times do not pay
for a burst later; and owes at most as much."""


class Offer(NamedTuple):
    """What an answer to a stream's next frame costs, in milliseconds, and what it gains."""

    ms: float
    gain: float


@dataclass(frozen=True)
class Ledger:
    """What is earned and not yet spent, in milliseconds: each stream's own, and in the pot."""

    own: Mapping[str, float]
    pot: float = 0.0

    def earn(self, seconds: float, budget: float, fairness: float, dearest_ms: float) -> Ledger:
        """After some time of ``budget`` ms a second; a stream keeps the dearest answer's price."""
        each = seconds * budget * fairness / max(1, len(self.own))
        own, pot = {}, self.pot + seconds * budget * (1 - fairness)
        for name, saved in self.own.items():
            own[name] = min(saved + each, max(dearest_ms, saved))
            pot += saved + each - own[name]
        most, first = MOST_SAVED_S * budget, len(own) * dearest_ms
        return Ledger(own, min(max(pot, -most - first), max(most, first)))

    def advance(self, dearest_ms: float) -> Ledger:
        """What pays for every stream's first answer, as a debt of the pot's."""
        own = dict.fromkeys(self.own, dearest_ms)
        return Ledger(own, self.pot - len(own) * dearest_ms)

    def settle(self, expected_ms: float, spent_ms: float) -> Ledger:
        """What was spent otherwise than expected is the pot's."""
        return replace(self, pot=self.pot + expected_ms - spent_ms)

    def charge(self, name: str, ms: float) -> Ledger:
        """A stream costs so much more: of its own as far as it has it, the rest is the pot's."""
        paid = min(self.own[name], ms)
        return Ledger({**self.own, name: self.own[name] - paid}, self.pot - (ms - paid))

    def without(self, name: str) -> Ledger:
        """A stream has ended: what it saved is for all."""
        own = {other: saved for other, saved in self.own.items() if other != name}
        return Ledger(own, self.pot + self.own[name])


def share_out(
    ledger: Ledger, offers: Mapping[str, Offer], dearest_ms: float
) -> tuple[list[str], Ledger]:
    """Which streams' frames are answered now, and what is left.

    A stream that has saved the dearest answer's price is answered. Then whoever gains most per
    millisecond comes first: what its own savings lack is the pot's to pay. Where the pot cannot,
    nobody else has of it, since otherwise what is cheap would always win over what is good.
    """
    own, pot, chosen = dict(ledger.own), ledger.pot, list[str]()

    def rank(name: str) -> tuple[bool, float, str]:
        offer = offers[name]
        return own[name] < dearest_ms, -offer.gain / offer.ms, name

    spoken_for = False
    for name in sorted(offers, key=rank):
        ms, gain = offers[name]
        saved = min(own[name], ms)
        there = 0.0 if spoken_for else max(0.0, pot)
        if own[name] >= dearest_ms or (gain > 0 and ms - saved <= there):
            own[name] -= saved
            pot -= ms - saved
            chosen.append(name)
        elif gain > 0:
            spoken_for = True
    return chosen, Ledger(own, pot)


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
