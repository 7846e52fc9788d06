from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.energy_log import (
    EnergyLog,
    joules_by_exit,
    joules_per_image,
)
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.slices import Slice, TimedCall
from dyninfer.errors import DyninferError, InputError

EASY, MIXED, HARD = (Scenario(1, share) for share in (0.0, 0.5, 1.0))


class FakeMeter:
    """At rest 10 W; an easy image adds 2 J, a hard one 5 J."""

    source = "a fake"

    def __init__(self) -> None:
        self.total = 100.0

    def joules(self) -> float:
        return self.total

    def close(self) -> None:
        raise AssertionError("whoever opened it closes it")

    def run(self, *exits: int, seconds: float = 0.5) -> Slice:
        self.total += 10 * seconds + sum(5 if index else 2 for index in exits)
        calls = tuple(TimedCall(0, 0, 0, 1, (index,), ({},)) for index in exits)
        return Slice(calls, 1e3 * seconds)


def test_joules_above_rest_by_scenario_and_by_exit() -> None:
    meter = FakeMeter()
    log = EnergyLog(meter, 10.0)
    for scenario, exits in ((EASY, (0, 0)), (MIXED, (0, 1)), (HARD, (1, 1)), (EASY, (0,))):
        piece = log.read_around(scenario, 2, lambda exits=exits: meter.run(*exits))
        assert piece.images == len(exits)
    assert log.of(EASY) == pytest.approx(2)
    assert log.of(MIXED) == pytest.approx(3.5)
    assert log.of(HARD) == pytest.approx(5)
    assert log.of(Scenario(8, 0.0)) is None
    energy, reason = log.by_exit()
    assert reason == ""
    assert energy is not None
    assert energy.joules_by_exit == pytest.approx((2, 5))
    assert (energy.source, energy.idle_watts) == ("a fake", 10.0)


def test_exits_that_no_slice_tells_apart_are_told_as_missing() -> None:
    meter = FakeMeter()
    log = EnergyLog(meter, 10.0)
    log.read_around(EASY, 2, lambda: meter.run(0, 0))
    energy, reason = log.by_exit()
    assert energy is None
    assert "exits" in reason


def test_batches_are_not_in_the_figures_by_exit() -> None:
    meter = FakeMeter()
    log = EnergyLog(meter, 10.0)
    log.read_around(Scenario(2, 0.5), 2, lambda: meter.run(0, 1))
    assert log.of(Scenario(2, 0.5)) == pytest.approx(3.5)
    assert log.by_exit()[0] is None


@pytest.mark.parametrize("failing", [3, 4], ids=["before a slice", "after a slice"])
def test_a_meter_that_fails_once_costs_its_own_figures_and_nothing_else(failing: int) -> None:
    class Failing(FakeMeter):
        readings = 0

        def joules(self) -> float:
            self.readings += 1
            if self.readings == failing:
                raise DyninferError("the meter does not answer")
            return super().joules()

    meter, runs = Failing(), []

    def run(exits: tuple[int, ...]) -> Slice:
        runs.append(exits)
        return meter.run(*exits)

    log = EnergyLog(meter, 10.0)
    for scenario, exits in ((EASY, (0, 0)), (HARD, (1, 1)), (EASY, (0,)), (HARD, (1,))):
        assert log.read_around(scenario, 2, partial(run, exits)).images == len(exits)
    assert runs == [(0, 0), (1, 1), (0,), (1,)]
    assert meter.readings == failing
    assert (log.of(EASY), log.of(HARD)) == (None, None)
    assert log.by_exit() == (None, "the meter does not answer")


def test_without_a_meter_slices_run_all_the_same() -> None:
    piece = Slice((), 1.0)
    log = EnergyLog(None, failure="no meter")
    assert log.read_around(EASY, 2, lambda: piece) is piece
    assert log.of(EASY) is None
    assert log.by_exit() == (None, "no meter")


def test_energy_of_an_image_is_above_idle():
    assert joules_per_image(100, 10, 4, 30) == pytest.approx(2)
    assert joules_per_image(39, 10, 4, 1) == pytest.approx(-1)  # noise is shown, not hidden


def test_energy_by_exit_from_pure_and_mixed_slices():
    shares = [(1, 0), (0.9, 0.1), (0.5, 0.5), (0, 1)]
    assert joules_by_exit(shares, [2, 2.4, 4, 6]) == pytest.approx((2, 6))
    assert joules_by_exit([(1.0,)], [3]) == pytest.approx((3,))


def test_energy_below_zero_is_held_at_zero():
    assert joules_by_exit([(1, 0), (0.5, 0.5), (0, 1)], [-1, 1, 3])[0] == 0


@settings(deadline=None)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=3),
    st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6),
    st.integers(0, 2**16),
)
def test_the_least_squares_are_scipys(costs, noise, seed):
    nnls = pytest.importorskip("scipy.optimize").nnls
    draw = np.random.default_rng(seed)
    shares = np.vstack([np.eye(len(costs)), draw.dirichlet(np.ones(len(costs)), size=3)])
    energies = shares @ np.array(costs) + np.array(noise)[: len(shares)]
    assert joules_by_exit(shares.tolist(), energies.tolist()) == pytest.approx(
        nnls(shares, energies)[0], abs=1e-6
    )


@pytest.mark.parametrize(
    ("shares", "joules", "message"),
    [
        ([(0.5, 0.5)], [1], "2 exits cannot be told apart"),
        ([(0.5, 0.5), (0.51, 0.49)], [1, 1], "2 exits cannot be told apart"),
        ([(0.5, 0.5), (0.52, 0.48)] * 200, [1, 1] * 200, "2 exits cannot be told apart"),
        ([(1, 0, 0), (0, 0, 1), (0.5, 0, 0.5)], [1, 1, 1], "no image left at exit 1"),
        ([], [], "no slice"),
    ],
)
def test_slices_that_do_not_determine_the_exits_are_refused(shares, joules, message):
    with pytest.raises(InputError, match=message):
        joules_by_exit(shares, joules)
