from __future__ import annotations

import random

import pytest

from dyninfer.exporters.slim.estimate import Estimate
from dyninfer.exporters.slim.mutations import probes, shrunk
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.cost import cost_of
from dyninfer.search.score import score_of
from tests.exporters.slim.conftest import SIDE

SIZE = (SIDE, SIDE)


def share(base: ZenDetStudent, student: ZenDetStudent, call: float, layers: float) -> float:
    """Of a machine on which calls and layers take these shares of the base's time."""
    own, unit = cost_of(student.structure, SIZE), cost_of(base.structure, SIZE)
    arithmetic = (1 - call - layers) * own.macs / unit.macs
    return call + layers * own.layers / unit.layers + arithmetic


@pytest.mark.parametrize(
    ("call", "layers"), [(0.3, 0.5), (0.0, 1.0), (0.0, 0.0), (0.4, 0.0), (0.9, 0.1)]
)
def test_three_that_were_timed_tell_what_calls_layers_and_arithmetic_take(
    base: ZenDetStudent, call: float, layers: float
) -> None:
    estimate = Estimate(base, SIZE)
    for timed in (base, *probes(base)):
        estimate.add(timed, share(base, timed, call, layers))
    other, _ = shrunk(base, estimate, 0.8, random.Random(0))
    assert estimate(other) == pytest.approx(share(base, other, call, layers))


def test_nothing_takes_less_than_no_time(base: ZenDetStudent) -> None:
    estimate, timed = Estimate(base, SIZE), [base, *probes(base)]
    for student, took in zip(timed, (1.0, 1.2, 0.4), strict=True):  # fewer layers took longer
        estimate.add(student, took)
    assert all(estimate(student) >= 0 for student in timed)
    assert estimate(timed[2]) < estimate(timed[0])


def test_of_several_within_the_limit_the_highest_score_is_taken(
    base: ZenDetStudent, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = Estimate(base, SIZE)
    for timed in (base, *probes(base)):
        estimate.add(timed, share(base, timed, 0.2, 0.3))
    scores = []
    for drawn in (1, 8):
        monkeypatch.setattr("dyninfer.exporters.slim.mutations._DRAWN", drawn)
        found = [shrunk(base, estimate, 0.7, random.Random(seed)) for seed in range(6)]
        assert all(estimate(student) <= 0.7 and changes for student, changes in found)
        scores.append(sum(score_of(student.structure) for student, _ in found))
    assert scores[1] > scores[0]
    _, changes = shrunk(base, estimate, 2.0, random.Random(0))
    assert len(changes) == 1
    fastest, _ = shrunk(base, estimate, 0.0, random.Random(0))
    assert estimate(fastest) < 0.7
