"""The energy of every slice, where the machine has a meter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from dyninfer.benchmarks.latency.record import Energy
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.slices import MS_PER_S, Slice
from dyninfer.benchmarks.latency.step_costs import nonnegative_least_squares
from dyninfer.benchmarks.machine import EnergyMeter, find_energy_meter, measure_idle_watts
from dyninfer.errors import DyninferError, InputError
from dyninfer.plain_text import counted

LEAST_SINGULAR_VALUE = 0.05
"""Below it, an error of the energies comes back twentyfold in the exits' figures."""


@dataclass
class EnergyLog:
    """Joules of the slices of each scenario.

    Only slices that count are read. A meter counts the whole package or board, so what else runs
    is in the figure; ``idle_watts`` is taken off for as long as the slice lasted. A meter that
    fails once is not asked again, and then there are no figures at all: those of a part of the
    rounds would not be fair to all scenarios. Without a meter, ``failure`` says why from the start.
    """

    meter: EnergyMeter | None
    idle_watts: float = 0.0
    failure: str = ""
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
        if self.meter is None or self.failure:
            return None
        try:
            return self.meter.joules()
        except DyninferError as error:
            self.failure = str(error)
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
        if self.failure or scenario.name not in self._used:
            return None
        joules, seconds, images = np.sum(self._used[scenario.name], axis=0).tolist()
        return joules_per_image(joules, seconds, self.idle_watts, int(images)) if images else None

    def by_exit(self) -> tuple[Energy | None, str]:
        """Joules of an image at each exit, from slices of batch 1; or None, and why."""
        if self.meter is None or self.failure:
            return None, self.failure
        shares, joules = [row for row, _ in self._rows], [own for _, own in self._rows]
        try:
            found = joules_by_exit(shares, joules)
        except InputError as error:
            return None, str(error)
        return Energy(self.meter.source, self.idle_watts, found), ""


@contextmanager
def metered(
    device: str, idle_seconds: float, on_step: Callable[[str], object]
) -> Iterator[EnergyLog]:
    """A log of the energy, once it is known what the machine uses with open engines at rest."""
    meter, reason = find_energy_meter(device)
    if meter is None:
        yield EnergyLog(None, failure=reason)
        return
    log = EnergyLog(meter)
    try:
        on_step("measuring the power at rest")
        try:
            log.idle_watts = measure_idle_watts(meter, idle_seconds)
        except DyninferError as error:
            log.failure = str(error)
        yield log
    finally:
        meter.close()


def joules_per_image(total_joules: float, seconds: float, idle_watts: float, images: int) -> float:
    """Energy above idle for each of the images of a slice; below 0 where noise outweighs it."""
    return (total_joules - idle_watts * seconds) / images


def joules_by_exit(shares: Sequence[Sequence[float]], joules: Sequence[float]) -> tuple[float, ...]:
    """Energy of an image that leaves at each exit, from slices with different mixtures.

    By least squares; none is negative.

    Args:
        shares: (slices, exits): of the images of a slice, those that left at each exit.
        joules: (slices,): energy per image of each slice.

    Raises:
        InputError: the slices do not tell the exits apart.
    """
    if not shares:
        raise InputError("no slice was of single images")
    mixtures, energies = np.asarray(shares, np.float64), np.asarray(joules, np.float64)
    exits = mixtures.shape[1]
    # as if there were as many slices as exits: repeats add nothing
    weakest = np.linalg.svd(mixtures, compute_uv=False)[-1] / np.sqrt(len(energies) / exits)
    if len(energies) < exits or weakest < LEAST_SINGULAR_VALUE:
        unseen = [str(index) for index in range(exits) if not mixtures[:, index].any()]
        raise InputError(
            f"{counted(exits, 'exit')} cannot be told apart by {counted(len(energies), 'slice')}"
            + (f" (no image left at exit {', '.join(unseen)})" if unseen else "")
            + f": measure at least {exits} mixtures that differ by a tenth or more"
        )
    return tuple(nonnegative_least_squares(mixtures, energies).tolist())
