"""Energy meters: over a counter of joules, and over a sensor of watts that a thread samples."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from dyninfer.errors import DyninferError, InputError

_LONGEST_GAP_S = 5.0


class EnergyMeter(Protocol):
    """Counts energy from when it was opened."""

    source: str

    def joules(self) -> float:
        """Energy so far; it never falls.

        Raises:
            DyninferError: the meter does not answer any more.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class CounterMeter:
    """An energy meter over a counter of joules, which is read when the meter is asked.

    ``read_joules`` raises DyninferError where the counter does not answer.
    """

    def __init__(
        self,
        source: str,
        read_joules: Callable[[], float],
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.source = source
        self._read_joules, self._on_close = read_joules, on_close
        self._lock = threading.Lock()
        self._start = read_joules()

    def joules(self) -> float:
        """Energy since the meter was opened."""
        with self._lock:
            return self._read_joules() - self._start

    def close(self) -> None:
        """Let go of the counter, once."""
        on_close, self._on_close = self._on_close, lambda: None
        on_close()


class PowerIntegrator:
    """An energy meter over a power sensor: trapezoidal rule over its samples.

    A sample that the sensor refuses (``read_watts`` gives None) is left out; the next one closes
    the gap.
    """

    def __init__(
        self,
        source: str,
        read_watts: Callable[[], float | None],
        *,
        interval_s: float = 0.05,
        clock: Callable[[], float] = time.perf_counter,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        self.source = f"{source}, sampled every {interval_s * 1000:.0f} ms"
        self._read_watts, self._interval_s = read_watts, interval_s
        self._clock, self._on_close = clock, on_close
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._joules = 0.0
        self._last: tuple[float, float] | None = None
        self._started = clock()
        self.sample()
        self._thread = threading.Thread(target=self._run, daemon=True, name="power")
        self._thread.start()

    def sample(self) -> None:
        """Read the sensor and add the energy since the last sample."""
        with self._lock:
            watts, now = self._read_watts(), self._clock()
            if watts is None:
                return
            if self._last is not None:
                then, before = self._last
                self._joules += (watts + before) / 2 * (now - then)
            self._last = now, watts

    def joules(self) -> float:
        """Energy since the meter was opened.

        Raises:
            DyninferError: the sensor has not answered for five seconds.
        """
        self.sample()
        silent = self._clock() - (self._started if self._last is None else self._last[0])
        if silent > _LONGEST_GAP_S:
            raise DyninferError(
                f"{self.source} has not answered for {silent:.0f} s, expected a reading in watts; "
                "measure without energy"
            )
        return self._joules

    def close(self) -> None:
        """End the thread; the sum stays."""
        if not self._leave.is_set():
            self._leave.set()
            self._thread.join()
            self._on_close()

    def _run(self) -> None:
        while not self._leave.wait(self._interval_s):
            self.sample()


def measure_idle_watts(
    meter: EnergyMeter,
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Mean power while this process waits. Whatever else runs is in it.

    Raises:
        InputError: the time is not positive.
    """
    if seconds <= 0:
        raise InputError(f"idle power over {seconds:g} s, expected a time above 0; 10 s is good")
    start, before = clock(), meter.joules()
    sleep(seconds)
    after, end = meter.joules(), clock()
    return (after - before) / (end - start)
