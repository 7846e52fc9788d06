from __future__ import annotations

import pytest

from dyninfer.benchmarks.lab.limits import engines, memory
from dyninfer.errors import DyninferError
from tests import support


def test_engines_are_compared_with_the_graph_on_every_way(tmp_path) -> None:
    found = engines.measure(support.write_two_exits(tmp_path / "two.dyn"), rounds=3, settle_ms=0)
    assert [row.key for row in found] == ["engines-exit-0", "engines-exit-1"]
    for row in found:
        assert row.unit == "ratio"
        assert row.limit == 1.0
        assert row.measured.rounds == 3
        assert row.holds == (row.measured.median <= 1)
        assert [len(times) for times in row.times_ms.values()] == [3, 3]
        assert all("engines only" in name for name in row.times_ms)


def test_memory_is_of_fresh_processes_in_turns(tmp_path) -> None:
    (found,) = memory.measure(support.write_two_exits(tmp_path / "two.dyn"), 2)
    assert set(found.times_ms) == {"dyninfer", "if-own-pool", "if-shared-pool"}
    assert all(10 < mib < 10_000 for values in found.times_ms.values() for mib in values)
    assert 0.5 < found.measured.median < 2  # Python and the libraries are most of it
    assert {len(values) for values in found.times_ms.values()} == {2}


@pytest.mark.parametrize("measure", [engines.measure, memory.measure])
def test_without_a_router_there_is_nothing_to_be_compared_with(tmp_path, measure) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    with support.refuses(DyninferError, "lacks a router"):
        measure(path, 2)
