"""The contexts of a stage for one caller: as few as serve it well."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable

from dyninfer.engines.trt.freeing import Freeing
from dyninfer.engines.trt.lane import Lane

FEW = 2
"""Contexts of a profile that a stage gets as they are asked for: two sizes in turns, such as a
whole batch and what is left of a list, each keep a graph."""
OFTEN = 16
"""Runs at a batch size after which it gets a context of its own, beside the few."""
MOST = 64
"""Contexts that a stage may have."""


class Lanes:
    """A stage's contexts by what they are wired for: a batch size, and where its inputs are.

    Contexts and graphs cost memory, and most sizes come once: what comes for the first time takes
    the place of what was not used for longest. A size that comes often gets its own.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[Hashable, Lane] = OrderedDict()
        self._missed: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._lanes)

    def find(self, key: Hashable) -> Lane | None:
        """The context that is wired so."""
        lane = self._lanes.get(key)
        if lane is not None:
            self._lanes.move_to_end(key)
        return lane

    def room(self, key: Hashable, profile: int, own: bool, make: Callable[[], Lane]) -> Lane:
        """A context to wire so, which :meth:`keep` then takes.

        Args:
            key: what it will be wired for.
            profile: that of the engine which it needs.
            own: whether it gets one of its own in any case.
            make: makes one.
        """
        self._missed[key] += 1
        same = [known for known, lane in self._lanes.items() if lane.profile == profile]
        wanted = own or len(same) < FEW or self._missed[key] >= OFTEN
        if wanted and len(self._lanes) < MOST:
            return make()
        if same:
            return self._lanes.pop(same[0])
        oldest, lane = next(iter(self._lanes.items()))
        lane.finish()
        lane.close()
        del self._lanes[oldest]
        return make()

    def keep(self, key: Hashable, lane: Lane) -> None:
        """Take a context that is wired by now."""
        self._lanes[key] = lane

    def close(self) -> None:
        """Free all contexts; their streams must be idle."""
        with Freeing() as freeing:
            while self._lanes:
                freeing.run(self._lanes.popitem()[1].close)
