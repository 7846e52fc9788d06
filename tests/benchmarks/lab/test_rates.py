from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.setup import CallKind, Setup
from dyninfer.benchmarks.lab import rates


class Calls:
    """A contender of which each call takes a millisecond more than the one before."""

    started: ClassVar[list[Calls]] = []

    def __init__(self, setup: Setup | None = None) -> None:
        self.started.append(self)
        self.slow = 2.0 if setup is None else 0.7
        self.made: list[tuple[CallKind, int, int, bool]] = []

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(
        self, way: int, call: CallKind, calls: int = 1, *, wake: bool = False
    ) -> dict[str, float]:
        self.made.append((call, way, calls, wake))
        return {"ms": self.slow * len(self.made)}


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(rates.time, "sleep", slept.append)
    return slept


def test_calls_without_a_wait_are_made_by_the_worker_itself(waits) -> None:
    worker = Calls()
    assert rates._turn(worker, CallKind.API, 1, 0) == 2.0
    assert worker.made == [(CallKind.API, 1, 20, True)]
    assert waits == [0.15]


def test_a_wait_is_before_every_call_and_the_first_does_not_count(waits) -> None:
    worker = Calls()
    assert rates._turn(worker, CallKind.ENGINES, 0, 100) == 2.0 * 3.5  # of the second to the fifth
    assert worker.made == [(CallKind.ENGINES, 0, 1, False)] * 5
    assert waits == [0.15, *[0.1] * 5]


@pytest.mark.usefixtures("waits")
def test_every_way_is_compared_with_the_single_graph_at_every_rate(
    small_bundle: Path, monkeypatch
) -> None:
    monkeypatch.setattr(rates, "Worker", Calls)
    monkeypatch.setattr(Calls, "started", [])
    monkeypatch.setattr(Contestants, "setup_of", lambda *_: None)
    record = rates.measure([str(small_bundle)], 2)
    kinds = {(row["way"], row["gap_ms"], row["contender"]) for row in record["rows"]}
    assert len(kinds) == len(record["rows"]) == 2 * 3 * 4
    for row in record["rows"]:
        assert (row["ratio"]["median"] == 1.0) is (row["contender"] == "single graph")
    assert len(Calls.started) == 2 * 3  # every round starts the graph and both bundles anew
    assert all(len({way for _, way, *_ in calls.made}) == 2 for calls in Calls.started)
