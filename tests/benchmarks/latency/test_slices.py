from __future__ import annotations

import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency import slices
from dyninfer.benchmarks.latency.slices import WallClock, due_times_ns, frozen_garbage, run_slice
from dyninfer.results.answers import Detections

MS = 1_000_000


class FakeClock:
    """A clock that only waiting and the detector move."""

    def __init__(self) -> None:
        self.ns = 5 * MS

    def now_ns(self) -> int:
        return self.ns

    def wait_until(self, moment_ns: int) -> None:
        self.ns = max(self.ns, moment_ns)


class FakeDetector:
    """Calls take the given milliseconds, in turn."""

    def __init__(self, clock: FakeClock, *spent_ms: float) -> None:
        self.clock, self.spent_ms, self.calls = clock, spent_ms, 0

    def __call__(self, pictures: list) -> list[Detections]:
        self.clock.ns += round(self.spent_ms[self.calls % len(self.spent_ms)] * MS)
        self.calls += 1
        return [found() for _ in pictures]


def found() -> Detections:
    return Detections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ()
    )


def batches_of(calls: int, size: int = 1) -> list[list]:
    return [[np.zeros((2, 2, 3), np.uint8)] * size for _ in range(calls)]


def test_no_call_is_an_empty_slice() -> None:
    piece = run_slice(lambda _: [], [])
    assert (piece.calls, piece.images) == ((), 0)


def test_a_closed_loop_starts_each_call_when_one_has_ended() -> None:
    clock = FakeClock()
    piece = run_slice(FakeDetector(clock, 3, 7), batches_of(4, 2), clock=clock)
    assert [call.latency_ms for call in piece.calls] == [3, 7, 3, 7]
    assert piece.wall_ms == 20
    assert piece.images == 8
    assert not any(call.late for call in piece.calls)


def test_a_lone_caller_makes_its_calls_in_this_thread() -> None:
    """Which has warmed up, and whose memory is at hand."""
    threads: list[int] = []

    def detect(_pictures: list) -> list[Detections]:
        threads.append(threading.get_ident())
        return [found()]

    run_slice(detect, batches_of(2))
    assert threads == [threading.get_ident()] * 2


def test_calls_on_a_schedule_wait_until_they_are_due() -> None:
    clock = FakeClock()
    piece = run_slice(FakeDetector(clock, 3), batches_of(4), 100.0, clock=clock)
    assert [call.latency_ms for call in piece.calls] == [3, 3, 3, 3]
    assert piece.wall_ms == 43
    assert not any(call.late for call in piece.calls)


def test_a_slow_call_delays_the_ones_due_meanwhile_and_they_say_so() -> None:
    clock = FakeClock()
    piece = run_slice(FakeDetector(clock, 25, 2, 2, 2, 2), batches_of(5), 100.0, clock=clock)
    # due at 10, 20, 30, 40, 50: the first ends at 35, so the second waits 15 and the third 7
    assert [call.latency_ms for call in piece.calls] == [25, 17, 9, 2, 2]
    assert [call.wall_ms for call in piece.calls] == [25, 2, 2, 2, 2]
    assert [call.late for call in piece.calls] == [False, True, True, False, False]


def test_more_calls_than_the_machine_can_keep_wait_longer_and_longer() -> None:
    clock = FakeClock()
    piece = run_slice(FakeDetector(clock, 20), batches_of(5), 100.0, clock=clock)
    assert [call.latency_ms for call in piece.calls] == [20, 30, 40, 50, 60]


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0.1, 1e4))
def test_the_schedule_is_absolute_and_even(calls: int, rate: float) -> None:
    due = due_times_ns(calls, rate)
    assert len(due) == calls
    for number, moment in enumerate(due, 1):
        assert moment is not None
        assert abs(moment - number * 1e9 / rate) <= 1


def test_without_a_rate_nothing_is_due() -> None:
    assert due_times_ns(3, None) == [None, None, None]


@pytest.mark.parametrize("rate", [None, 500.0])
def test_callers_at_once_make_every_call_once(rate: float | None) -> None:
    seen: list[int] = []
    threads: set[int] = set()
    together = threading.Barrier(3)

    def detect(pictures: list) -> list[Detections]:
        if len(seen) < 3:
            seen.append(int(pictures[0][0, 0, 0]))
            together.wait(timeout=10)  # only three callers at once get past this
        else:
            seen.append(int(pictures[0][0, 0, 0]))
        threads.add(threading.get_ident())
        return [found()]

    batches = [[np.full((2, 2, 3), number, np.uint8)] for number in range(30)]
    piece = run_slice(detect, batches, rate, callers=3)
    assert sorted(seen) == list(range(30))
    assert len(piece.calls) == 30
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    starts = [call.due_ns for call in piece.calls]
    assert starts == sorted(starts)


def test_what_goes_wrong_in_a_thread_is_raised_and_all_threads_have_ended() -> None:
    before = threading.active_count()

    def detect(_pictures: list) -> list[Detections]:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_slice(detect, batches_of(10), callers=4)
    assert threading.active_count() == before


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_interruption_ends_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(slices, "wait", interrupted)
    calls: list[int] = []

    def detect(_pictures: list) -> list[Detections]:
        calls.append(1)
        time.sleep(0.01)
        return [found()]

    with pytest.raises(KeyboardInterrupt):
        run_slice(detect, batches_of(10_000), callers=2)
    assert threading.active_count() == before
    assert len(calls) < 10_000


def test_garbage_is_collected_before_the_clock_starts_and_not_within() -> None:
    clock, collected = FakeClock(), []

    def detect(pictures: list) -> list[Detections]:
        assert not gc.isenabled()
        clock.ns += MS
        return [found() for _ in pictures]

    def note(phase: str, _info: dict) -> None:
        if phase == "stop":
            collected.append(clock.ns)
            clock.ns += 100 * MS  # a collection that takes long

    gc.callbacks.append(note)
    try:
        piece = run_slice(detect, batches_of(3), clock=clock)
    finally:
        gc.callbacks.remove(note)
    assert collected
    assert gc.isenabled()
    assert piece.wall_ms == 3


def test_what_is_there_is_kept_from_the_collector_for_a_while() -> None:
    with frozen_garbage():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_the_wall_clock_never_returns_early() -> None:
    clock = WallClock()
    for wait_ns in (-MS, 0, 50_000, 3 * MS):
        moment = clock.now_ns() + wait_ns
        clock.wait_until(moment)
        assert clock.now_ns() >= moment


def test_times_are_told_to_the_nanosecond() -> None:
    clock = FakeClock()
    piece = run_slice(FakeDetector(clock, 2.5, 0.25), batches_of(2), clock=clock)
    assert [call.latency_ms for call in piece.calls] == [2.5, 0.25]
    assert [call.wall_ms for call in piece.calls] == [2.5, 0.25]
    assert piece.wall_ms == 2.75
    assert due_times_ns(3, 3.0) == [333_333_333, 666_666_667, 1_000_000_000]


def test_the_last_part_of_a_wait_is_not_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * 1e9) + 150_000

    clock = SimpleNamespace(perf_counter_ns=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(slices, "time", clock)
    WallClock().wait_until(2_700_000)
    assert slept == [0.0025, 0]
    slept.clear()
    WallClock().wait_until(2_600_000)
    assert slept == []


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        run_slice(lambda _: [found()], batches_of(1))
        assert not gc.isenabled()
    finally:
        gc.enable()
