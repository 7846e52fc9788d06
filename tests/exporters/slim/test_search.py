from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample
from dyninfer.evaluation.interleaved import compare
from dyninfer.exporters.slim.learning import Budget
from dyninfer.exporters.slim.search import Candidate, Search
from dyninfer.exporters.slim.stopwatch import Latency
from dyninfer.exporters.slim.task import Target, Task, split
from dyninfer.exporters.zendet.export import image_spec
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.cost import cost_of
from tests.exporters.slim.conftest import NAMES, SIDE


@dataclass
class ByCost:
    """A stopwatch of a machine whose time is multiply-accumulates, so that runs are equal."""

    base: ZenDetStudent

    def time(self, student: ZenDetStudent, _rounds: int = 2) -> Latency:
        macs = [cost_of(each.structure, (SIDE, SIDE)).macs for each in (student, self.base)]
        return Latency(macs[0] / 1e6, macs[1] / 1e6, compare(macs[:1] * 2, macs[1:] * 2))

    def time_base(self) -> Latency:
        return self.time(self.base)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pools and few students: a search in a second."""
    torch.set_num_threads(1)
    monkeypatch.setattr("dyninfer.exporters.slim.search.STUDENTS", 3)
    monkeypatch.setattr("dyninfer.exporters.slim.search.BATCH", 4)
    monkeypatch.setattr("dyninfer.exporters.slim.elastic.POOL", 2)


def search_of(
    base: ZenDetStudent, samples: Sequence[Sample], target: Target, steps: int = 10
) -> tuple[Search, list[Candidate]]:
    learned, held_back = split(samples, image_spec((SIDE, SIDE)), 0)
    task = Task(base, learned, held_back, NAMES, target, ByCost(base), 0)  # type: ignore[arg-type]
    kept: list[Candidate] = []
    return Search(task, Budget(steps), lambda *_: None, kept.append), kept


def test_the_best_student_within_the_target_is_kept_the_same_again(
    base: ZenDetStudent, samples: Sequence[Sample]
) -> None:
    before = {name: tensor.clone() for name, tensor in base.state.items()}
    search, kept = search_of(base, samples, Target(ratio=0.7))
    best = search.run()
    assert best.latency.ratio.median <= 0.7
    assert kept[-1] is best
    assert best.ap == max(each.ap for each in [*kept, best])
    assert best.student.model() is not None
    assert all(torch.equal(base.state[name], tensor) for name, tensor in before.items())
    assert 0 <= search.whole_ap <= 1
    again = search_of(base, samples, Target(ratio=0.7))[0].run()
    assert again.changes == best.changes
    made = best.student.state, again.student.state
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_a_base_within_the_target_is_left_alone(
    base: ZenDetStudent, samples: Sequence[Sample]
) -> None:
    search, kept = search_of(base, samples, Target(ms=1000.0))
    with pytest.raises(InputError, match="within the target already"):
        search.run()
    assert not kept


@pytest.mark.slow
def test_no_student_within_the_target(base: ZenDetStudent, samples: Sequence[Sample]) -> None:
    search, kept = search_of(base, samples, Target(ratio=0.001))
    with pytest.raises(InputError, match="no student came within the target"):
        search.run()
    fastest = min(search.candidates[1:], key=lambda each: each.latency.ratio.median)
    assert kept == [fastest]


def test_a_search_that_has_used_up_its_time_still_ends(
    base: ZenDetStudent, samples: Sequence[Sample]
) -> None:
    search, kept = search_of(base, samples, Target(ratio=0.9))
    search.budget = Budget(seconds=1e-3)
    assert search.run() is kept[-1]
