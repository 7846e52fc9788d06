"""The energy of every slice, where the machine has a meter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dyninfer.benchmarks.latency.record import Energy
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice
from dyninfer.benchmarks.machine import EnergyMeter, joules_by_exit, joules_per_image
from dyninfer.errors import DyninferError, InputError


@dataclass
class EnergyLog:
    """Joules of the slices of each scenario.

    Only slices that count are read. A meter counts the whole package or board, so what else runs
    is in the figure; ``idle_watts`` is taken off for as long as the slice lasted. A meter that
    fails once is not asked again, and then there are no figures at all: those of a part of the
    rounds would not be fair to all scenarios.
    """

    meter: EnergyMeter
    idle_watts: float
    _failure: str = ""
    _used: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    _rows: list[tuple[tuple[float, ...], float]] = field(default_factory=list)

    def read_around(self, scenario: Scenario, exits: int, run: Callable[[], Slice]) -> Slice:
        """Run a slice, and note what it used."""
        before = self._read()
        piece = run()
        after = None if before is None else self._read()
        if before is not None and after is not None:
            self._note(scenario, exits, piece, after - before)
        return piece

    def _read(self) -> float | None:
        """Joules so far; None from the first failure on."""
        if self._failure:
            return None
        try:
            return self.meter.joules()
        except DyninferError as error:
            self._failure = str(error)
            return None

    def _note(self, scenario: Scenario, exits: int, piece: Slice, used: float) -> None:
        seconds = piece.wall_ms / MS_PER_S
        self._used.setdefault(scenario.name, []).append((used, seconds, piece.images))
        if scenario.batch == 1 and piece.images:
            left = [index for call in piece.calls for index in call.exits]
            shares = tuple(left.count(index) / len(left) for index in range(exits))
            own = joules_per_image(used, seconds, self.idle_watts, piece.images)
            self._rows.append((shares, own))

    def of(self, scenario: Scenario) -> float | None:
        """Joules of an image of the scenario, above idle; None where it was not measured."""
        if self._failure or scenario.name not in self._used:
            return None
        joules, seconds, images = np.sum(self._used[scenario.name], axis=0).tolist()
        return joules_per_image(joules, seconds, self.idle_watts, int(images)) if images else None

    def by_exit(self) -> tuple[Energy | None, str]:
        """Joules of an image at each exit, from slices of batch 1; or None, and why."""
        if self._failure:
            return None, self._failure
        shares, joules = [row for row, _ in self._rows], [own for _, own in self._rows]
        try:
            found = joules_by_exit(shares, joules)
        except InputError as error:
            return None, str(error)
        return Energy(self.meter.source, self.idle_watts, tuple(found)), ""


@dataclass(frozen=True)
class NoEnergy:
    """What stands in for an :class:`EnergyLog` where there is no meter, with the ``reason``."""

    reason: str

    def read_around(self, _scenario: Scenario, _exits: int, run: Callable[[], Slice]) -> Slice:
        """Run a slice."""
        return run()

    def of(self, _scenario: Scenario) -> float | None:
        """None."""
        return None

    def by_exit(self) -> tuple[Energy | None, str]:
        """None, and why."""
        return None, self.reason
