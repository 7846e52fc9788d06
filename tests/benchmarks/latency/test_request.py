from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.request import warm_up, window_calls
from dyninfer.benchmarks.latency.slices import Slice, TimedCall

MS = 1_000_000


class Machine:
    """Makes calls that take ``ms(number)`` each."""

    def __init__(self, ms: Callable[[int], float]) -> None:
        self.ms, self.calls, self.windows, self.now_ns = ms, 0, [], 0

    def run(self, calls: int) -> Slice:
        made = []
        start = self.now_ns
        for _ in range(calls):
            begin = self.now_ns
            self.now_ns += round(self.ms(self.calls) * MS)
            self.calls += 1
            made.append(TimedCall(begin, begin, begin, self.now_ns, (0,), ({},)))
        self.windows.append(calls)
        return Slice(tuple(made), (self.now_ns - start) / MS)

    def clock(self) -> float:
        return self.now_ns / 1e9


@settings(deadline=None)
@given(st.floats(1e-3, 1e4), st.integers(1, 20))
def test_a_window_holds_whole_periods_and_some_tens_of_milliseconds(ms: float, period: int) -> None:
    calls = window_calls(ms, period)
    assert calls % period == 0
    assert calls >= period
    assert calls * ms >= 60 * (1 - 1e-9) or calls == period
    assert (calls - period) * ms < 60 + ms


def test_constant_times_are_steady_at_once() -> None:
    machine = Machine(lambda _: 10)
    found, call_ms = warm_up(machine.run, clock=machine.clock)
    assert found.stable
    assert found.calls == 2 + 4 * 6
    assert found.seconds == pytest.approx(0.26)
    assert call_ms == 10


def test_slow_first_calls_are_outlived() -> None:
    machine = Machine(lambda call: 20 if call < 9 else 5)
    found, call_ms = warm_up(machine.run, clock=machine.clock)
    assert found.stable
    assert found.calls > 9 + 3 * 3
    assert call_ms == 5


def test_times_that_never_settle_end_at_the_limit_and_say_so() -> None:
    machine = Machine(lambda call: 5 + call)
    found, _ = warm_up(machine.run, max_seconds=1.0, clock=machine.clock)
    assert not found.stable
    assert found.seconds >= 1.0


def test_slow_calls_make_do_with_few_windows() -> None:
    machine = Machine(lambda _: 700)
    found, call_ms = warm_up(machine.run, max_seconds=3.0, clock=machine.clock)
    assert (found.calls, found.stable, call_ms) == (4, True, 700)
    machine = Machine(lambda _: 4000)
    found, call_ms = warm_up(machine.run, max_seconds=3.0, clock=machine.clock)
    assert (found.calls, found.stable, call_ms) == (2, True, 4000)


def test_slow_calls_that_differ_are_not_called_stable() -> None:
    machine = Machine(lambda call: 4000 if call else 8000)
    found, _ = warm_up(machine.run, max_seconds=3.0, clock=machine.clock)
    assert (found.calls, found.stable) == (2, False)


def test_a_cold_first_call_is_outlived() -> None:
    machine = Machine(lambda call: 20 if call else 300)
    found, call_ms = warm_up(machine.run, clock=machine.clock)
    assert (found.calls, found.stable, call_ms) == (2 + 4 * 3, True, 20)


def test_windows_hold_whole_periods() -> None:
    machine = Machine(lambda call: 50 if call % 4 == 3 else 5)
    found, _ = warm_up(machine.run, period=4, clock=machine.clock)
    assert found.stable
    assert all(calls % 4 == 0 for calls in machine.windows)
