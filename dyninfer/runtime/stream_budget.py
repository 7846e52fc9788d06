"""Which frames of many streams are answered within a budget, each on which way."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dyninfer.errors import PolicyError
from dyninfer.results.answers import Detections
from dyninfer.results.tasks import disagreement
from dyninfer.routing.experience import Experience
from dyninfer.routing.horizon import Outlook, best_ways
from dyninfer.routing.sharing import Ledger, Offer, losses_near, share_out
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, as_float, shown

_SHORTEST_S = 0.04  # that an answer stands for
_NEWS = 0.2  # share of its latest in what an answer is expected to cost


def parse_budget(text: str | float | None) -> float | None:
    """Milliseconds a second: ``200ms/s``, or the number alone.

    Raises:
        PolicyError: it is something else, or not above 0.
    """
    if text is None:
        return None
    found = as_float(text)
    if isinstance(text, str):
        number = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*ms\s*/\s*s\s*", text, re.IGNORECASE)
        found = float(number[1]) if number else math.nan
    if not 0 < found < math.inf:
        raise PolicyError(
            f"the budget is {shown(text)}, expected milliseconds of work a second above 0, "
            "such as 200ms/s"
        )
    return found


class Request(NamedTuple):
    """A frame of a stream that is to be answered on a way."""

    stream: str
    way: int


class StreamBudget:
    """What is there to spend, what answers cost, and what each stream's answers have shown.

    Args:
        names: of the streams.
        ways: ``exit_index`` has so many values to choose among; 1 where policies decide.
        budget: milliseconds of work a second.
        fairness: share of it that is dealt out evenly.
        prior: (ways,) loss of each way at an easiness, as believed before any answer.
    """

    def __init__(
        self,
        names: Iterable[str],
        ways: int,
        budget: float,
        fairness: float,
        prior: Callable[[float], Sequence[float]],
    ) -> None:
        self.ms: Float64Array | None = None
        self.seconds = 0.0
        self._budget, self._fairness, self._prior, self._ways = budget, fairness, prior, ways
        self._ledger = Ledger(dict.fromkeys(names, 0.0))
        self._known = {name: Experience(ways) for name in self._ledger.own}
        self._answered: dict[str, tuple[float, int]] = {}  # when, and on which way
        self._best: dict[str, tuple[float, Detections]] = {}  # the latest of the last exit

    def measured(self, ms: Float64Array) -> None:
        """(ways,) milliseconds of an answer on each way, on the first frame."""
        self.ms = ms
        self._ledger = self._ledger.advance(float(ms.max()))

    def go_on(self, seconds: float) -> None:
        """The streams' clock has come so far."""
        if self.ms is not None and seconds > self.seconds:
            self._ledger = self._ledger.earn(
                seconds - self.seconds, self._budget, self._fairness, float(self.ms.max())
            )
        self.seconds = max(self.seconds, seconds)

    def without(self, name: str) -> None:
        """A stream has ended."""
        self._ledger = self._ledger.without(name)
        del self._known[name]

    def choose(self, names: Iterable[str]) -> list[Request]:
        """Whose frames are answered now; those of one stream are one after the other.

        Where a stream has two, an earlier exit is compared with the last one, which comes second
        and whose answer is given.
        """
        assert self.ms is not None  # it is measured before
        ms = self.ms.tolist()
        outlooks = {name: self._outlook(name) for name in self._known}
        ways = best_ways(ms, outlooks, self._budget)
        offers = {
            name: Offer(ms[ways[name]], self._gain(name, ways[name], outlooks[name]))
            for name in names
        }
        chosen, self._ledger = share_out(self._ledger, offers, max(ms))
        requests = []
        for name in chosen:
            audited = self._known[name].next_audit(ms, ways[name])
            if audited is None:
                requests.append(Request(name, ways[name]))
                continue
            requests += [Request(name, audited), Request(name, self._ways - 1)]
            more = ms[audited] + ms[-1] - ms[ways[name]]
            self._ledger = self._ledger.charge(name, more)
        return requests

    def _outlook(self, name: str) -> Outlook:
        known = self._known[name]
        return Outlook(known.lost(self._prior(known.easiness)), known.change)

    def _gain(self, name: str, way: int, outlook: Outlook) -> float:
        """What was lost so far by keeping the last answer instead of having a new one."""
        if name not in self._answered:
            age, worse = self.seconds, 1.0 - outlook.lost[way]
        else:
            since, last = self._answered[name]
            age, worse = self.seconds - since, outlook.lost[last] - outlook.lost[way]
        age = max(age, _SHORTEST_S)
        return age * (max(0.0, worse) + outlook.change * age / 2)

    def learn(
        self, requests: Sequence[Request], found: Sequence[Detections], spent: Float64Array
    ) -> None:
        """What came of them; ``spent`` (N,) are the milliseconds of each."""
        assert self.ms is not None  # it is measured before
        ways = [request.way for request in requests]
        expected = float(self.ms[ways].sum())
        for (_, way), ms in zip(requests, spent.tolist(), strict=True):
            self.ms[way] += _NEWS * (ms - self.ms[way])
        self._ledger = self._ledger.settle(expected, float(spent.sum()))
        for place, ((name, way), answer) in enumerate(zip(requests, found, strict=True)):
            if name not in self._known:
                continue
            known = self._known[name]
            self._answered[name] = self.seconds, way
            if answer.easiness is not None:
                known.easiness = answer.easiness
            if place and requests[place - 1].stream == name:
                earlier = found[place - 1]
                known.note_audit(requests[place - 1].way, disagreement(earlier, answer))
            known.note_work(float(spent[place]))
            if way == self._ways - 1 and self._ways > 1:
                if name in self._best:
                    since, best = self._best[name]
                    age = max(self.seconds - since, _SHORTEST_S)
                    known.note_change(disagreement(best, answer), age)
                self._best[name] = self.seconds, answer


def prior_losses(detector: Detector) -> Callable[[float], Sequence[float]]:
    """(ways,) expected losses by easiness: of these engines' calibration, as far as it is known."""
    easiness, losses = _calibrated(detector)
    ways = len(detector.manifest.ways)
    if losses is None:  # the easiness tells how good the first exit is
        return lambda value: ((1 - value) * np.linspace(1, 0, ways)).tolist()
    if easiness is None:
        mean = [*losses.mean(axis=1).tolist(), 0.0]
        return lambda _: mean
    return lambda value: losses_near(easiness, losses, value).tolist()


def _calibrated(detector: Detector) -> tuple[Float64Array | None, Float64Array | None]:
    """Easiness (N,) and losses (ways - 1, N) of these engines' calibration, as far as known."""
    record = detector.engine_record()
    for calibration in detector.bundle.calibrations():
        if not calibration.engine.differences(record, times=False) and calibration.losses:
            routers = calibration.easiness_array
            known = len(routers) == 1 and not np.isnan(routers).any()
            return routers[0] if known else None, calibration.losses_array
    return None, None
