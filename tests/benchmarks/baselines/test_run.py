from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.benchmarks.baselines import contest, run
from dyninfer.benchmarks.baselines.child import ChildError
from dyninfer.benchmarks.baselines.contest import Contest, Entry, calls_in_a_turn
from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.run import run_baselines
from dyninfer.benchmarks.baselines.setup import CallKind, Kind
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError, InputError
from dyninfer.runtime.engine_choice import EngineChoice
from tests import support

QUICK = {"rounds": 3, "settle_ms": 0.0}


@pytest.fixture
def two(tmp_path):
    return support.write_two_exits(tmp_path / "two.dyn")


@pytest.fixture
def pids(monkeypatch) -> list[int]:
    """Of all contenders' processes."""
    started: list[int] = []
    begin = contest.Worker.__init__

    def noting(self, *args):
        begin(self, *args)
        started.append(self.pid)

    monkeypatch.setattr(contest.Worker, "__init__", noting)
    return started


def none_is_left(pids: list[int]) -> bool:
    def is_running(pid: int) -> bool:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return False
        return True

    return bool(pids) and not any(map(is_running, pids))


def test_a_change_of_contenders_is_waited_for_and_no_warm_up(monkeypatch) -> None:
    log: list[str] = []

    class Contender:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, *_: object, **__: object) -> dict[str, float]:
            idle_ms = float(log[-1] == "wait")
            log.append(self.name)
            return {"ms": 15.0, "idle_cpu_ms": idle_ms}

    monkeypatch.setattr(contest, "time", SimpleNamespace(sleep=lambda _: log.append("wait")))
    with Contest() as opened:
        opened.workers |= {name: Contender(name) for name in "ab"}
        found = opened.time_in_turns([Entry(name, CallKind.API) for name in "ab"], 0, 2)
    assert log[:8] == ["wait", *3 * "a", "wait", *3 * "b"]
    assert log[8::2] == 4 * ["wait"]
    assert sorted(log[9::2]) == ["a", "a", "b", "b"]
    assert [times.idle_cpu_ms for times in found] == [1, 1]  # of the rounds alone


@pytest.mark.slow
def test_baselines_are_timed_in_turns_on_every_way(two, pids) -> None:
    steps: list[tuple[str, int, int]] = []
    names = ["single-graph-if", "always-last-exit", "naive", "pytorch-eager"]
    found = run_baselines(
        two, names, sources=[], progress=lambda *step: steps.append(step), **QUICK
    )
    both = {"dyninfer", "single-graph-if", "always-last-exit"}
    entries = {*both, *(f"{name}, engines only" for name in both), "naive"}
    assert {(t.name, t.side) for t in found.times} == {
        (name, side) for name in entries for side in ("exit 0", "exit 1")
    }
    assert all(len(t.times_ms) == 3 and min(t.times_ms) > 0 and t.what for t in found.times)
    assert {(r.baseline, r.side) for r in found.ratios} == {
        (name, side)
        for name in entries
        if not name.startswith("dyninfer")
        for side in ("exit 0", "exit 1")
    }
    assert {m.name for m in found.memory} == {*both, "naive"}
    assert all(0 < m.loaded_mib <= m.peak_mib and m.load_ms > 0 for m in found.memory)
    assert list(found.unavailable) == ["pytorch-eager"]
    assert "--source" in found.unavailable["pytorch-eager"]
    assert found.differences == {
        "single-graph-if": pytest.approx(0, abs=1e-6),
        "always-last-exit": pytest.approx(0, abs=1e-6),
        "naive": pytest.approx(0, abs=1e-6),
    }
    timed = [(what[7:13], done, of) for what, done, of in steps if "timing" in what]
    assert timed == [(way, done, 3) for way in ("exit 0", "exit 1") for done in (1, 2, 3)]
    assert none_is_left(pids)


def test_ratios_pair_like_with_like_round_by_round(two) -> None:
    found = run_baselines(two, ["always-last-exit"], memory=False, **QUICK)
    times = {(t.name, t.side): np.array(t.times_ms) for t in found.times}
    for ratio in found.ratios:
        ours = ratio.baseline.replace("always-last-exit", "dyninfer")
        pairs = times[ours, ratio.side] / times[ratio.baseline, ratio.side]
        assert ratio.ratio.median == pytest.approx(np.median(pairs))
    assert found.memory == ()


def test_a_baseline_that_computes_something_else_drops_out(two, pids, monkeypatch) -> None:
    monkeypatch.setattr(run, "largest_difference", lambda *_: 0.5)
    found = run_baselines(two, ["naive"], memory=False, **QUICK)
    assert "computes something else" in found.unavailable["naive"]
    assert found.differences["naive"] == 0.5
    assert {t.name for t in found.times} == {"dyninfer", "dyninfer, engines only"}
    assert none_is_left(pids)


def test_another_detector_stands_beside_without_agreeing(two, tmp_path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(support.means_of("picture", 4, 4, "mean").SerializeToString())
    found = run_baselines(two, [str(path)], memory=False, **QUICK)
    assert found.unavailable == {}
    assert [r.baseline for r in found.ratios] == ["other.onnx"] * 2
    assert "(1, 3, 4, 4)" in found.notes["other.onnx"]
    assert found.differences == {}


def test_a_file_that_is_no_detector_is_reported_and_the_rest_goes_on(two, tmp_path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing of use")
    found = run_baselines(two, [str(path), "naive"], memory=False, **QUICK)
    assert list(found.unavailable) == ["broken.onnx"]
    assert "\n" not in found.unavailable["broken.onnx"]
    assert {r.baseline for r in found.ratios} == {"naive"}


@pytest.mark.parametrize(
    ("write", "ways"),
    [
        (support.write_three_exits, ["exit 0", "exit 1", "exit 2"]),
        (support.write_select_detectors, ["branch 0", "branch 1"]),
        (support.write_select_classifiers, ["branch 0", "branch 1"]),
    ],
)
def test_every_way_of_every_route_is_compared(tmp_path, write, ways) -> None:
    path = write(tmp_path / "any.dyn")
    names = ["single-graph-if", "always-last-exit", "naive"]
    found = run_baselines(path, names, memory=False, **QUICK)
    assert found.unavailable == {}
    assert {(r.baseline, r.side) for r in found.ratios} >= {(n, way) for n in names for way in ways}
    assert all(found.differences[name] == pytest.approx(0, abs=1e-6) for name in names)


def test_without_a_router_there_is_no_single_graph(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    found = run_baselines(path, ["single-graph-if", "naive"], memory=False, **QUICK)
    assert "lacks a router" in found.unavailable["single-graph-if"]
    assert {r.side for r in found.ratios} == {"exit 0", "exit 1"}


def test_one_exit_is_timed_on_one_way(tmp_path) -> None:
    path = support.write_static(tmp_path / "static.dyn")
    found = run_baselines(path, ["always-last-exit"], memory=False, **QUICK)
    assert {t.side for t in found.times} == {"exit 0"}


def test_an_unknown_name_is_refused_before_anything_runs(two, monkeypatch) -> None:
    monkeypatch.setattr(run.Bundle, "open", lambda *_: pytest.fail("the bundle was opened"))
    with support.refuses(InputError, "'navie'", "nearest is 'naive'"):
        run_baselines(two, ["navie"])


@pytest.mark.parametrize("rounds", [-1, 0, 1])
def test_one_round_is_none(two, rounds) -> None:
    with support.refuses(InputError, f"{rounds} rounds", "at least 2"):
        run_baselines(two, ["naive"], rounds=rounds)


def test_a_bundle_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(BundleError):
        run_baselines(tmp_path / "none.dyn", ["naive"], rounds=2)


def test_when_dyninfer_itself_cannot_run_that_is_an_error(two) -> None:
    with support.refuses(ChildError, "dyninfer cannot be timed", "CUDAExecutionProvider"):
        run_baselines(two, ["always-last-exit"], rounds=2, engine=EngineChoice("cuda:0"))


def test_a_failure_of_the_caller_ends_all_processes(two, pids) -> None:
    def interrupt(what, _done, _total):
        if "timing" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_baselines(two, ["naive"], progress=interrupt, **QUICK)
    assert none_is_left(pids)


def test_a_contender_that_dies_on_the_way_drops_out_and_the_rest_goes_on(two, tmp_path) -> None:
    plan = Contestants(two, Bundle.open(two).manifest, EngineChoice(), tmp_path)
    plan.write_inputs()
    with Contest() as opened:
        opened.open("dyninfer", plan.setup(Kind.DYNINFER))
        opened.open("naive", plan.setup(Kind.NAIVE))
        victim = opened.workers["naive"].pid
        entries = [Entry(name, CallKind.API) for name in opened.workers]
        rounds = iter(range(5))

        def kill_after_two() -> None:
            if next(rounds) == 1:
                os.kill(victim, 9)

        samples = opened.time_in_turns(entries, 0, 4, 0.0, kill_after_two)
        assert [found.entry.contender for found in samples] == ["dyninfer"]
        assert len(samples[0].times_ms) == 4
        assert "killed" in opened.unavailable["naive"]


@pytest.mark.parametrize(
    ("call_ms", "calls"), [(0.01, 20), (1, 20), (7, 2), (10.1, 1), (500, 1), (float("nan"), 1)]
)
def test_a_turn_is_filled_with_short_calls(call_ms, calls) -> None:
    assert calls_in_a_turn(call_ms) == calls
