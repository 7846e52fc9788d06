from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyninfer.benchmarks.lab.limits.full_size import (
    OURS,
    THEIRS,
    measure_end_to_end,
    measure_engines,
    measure_loading,
    measure_memory_of_graph,
)
from dyninfer.benchmarks.lab.limits.overhead import write_idle_bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.errors import DyninferError, InputError
from tests import support


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    return write_idle_bundle(tmp_path / "idle.dyn")


def test_loading_is_timed_in_processes_of_its_own(idle: Path) -> None:
    (result,) = measure_loading(idle, 2)
    assert set(result.times_ms) == {OURS, THEIRS}
    assert all(len(times) == 2 and min(times) > 0 for times in result.times_ms.values())
    assert result.limit == 1.05


def test_a_bundle_that_cannot_be_loaded_is_said_so(idle: Path) -> None:
    broken = idle / "onnx" / "second.onnx"
    broken.write_bytes(b"no model, though the manifest knows it")
    support.reseal(idle, lambda m: m["stages"]["second"].update(sha256=file_sha256(broken)))
    with support.refuses(InputError, "second.onnx"):
        measure_loading(idle, 2)


def test_engines_are_compared_with_the_graph_on_every_way(tmp_path) -> None:
    found = measure_engines(support.write_two_exits(tmp_path / "two.dyn"), rounds=3, settle_ms=0)
    assert [row.key for row in found] == ["engines-exit-0", "engines-exit-1"]
    for row in found:
        assert row.unit == "ratio"
        assert row.limit == 1.0
        assert row.measured.rounds == 3
        assert row.holds == (row.measured.median <= 1)
        assert [len(times) for times in row.times_ms.values()] == [3, 3]
        assert all("engines only" in name for name in row.times_ms)


def test_memory_is_of_fresh_processes_in_turns(tmp_path) -> None:
    (found,) = measure_memory_of_graph(support.write_two_exits(tmp_path / "two.dyn"), 2)
    assert set(found.times_ms) == {"dyninfer", "single-graph-if"}
    assert all(10 < mib < 10_000 for values in found.times_ms.values() for mib in values)
    assert 0.5 < found.measured.median < 2  # Python and the libraries are most of it
    assert {len(values) for values in found.times_ms.values()} == {2}


@pytest.mark.parametrize("measure", [measure_engines, measure_memory_of_graph])
def test_without_a_router_there_is_nothing_to_be_compared_with(tmp_path, measure) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    with support.refuses(DyninferError, "lacks a router"):
        measure(path, 2)


def test_what_is_beside_the_engines_adds_up_to_the_call(small_bundle: Path) -> None:
    (result,) = measure_end_to_end(small_bundle, 3)
    rest, engines = (np.array(times) for times in result.times_ms.values())
    assert (rest > 0).all()
    assert (engines > 0).all()
    assert result.measured.median == pytest.approx(float(np.median(rest / engines)))
    with support.refuses(InputError, "1 rounds"):
        measure_end_to_end(small_bundle, 1)
