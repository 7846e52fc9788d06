"""A slice of a scenario: some calls one after the other, by one caller or several, timed."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

from dyninfer.images.pictures import PathOrImage
from dyninfer.results.answers import Answer

NS_PER_MS = 1e6
NS_PER_S = 1e9
MS_PER_S = 1e3
_MARGIN_NS = 200_000
"""A sleep wakes late by some tens of microseconds; the last part of a wait is not slept."""

Detect = Callable[[list[PathOrImage]], list[Answer]]


class WallClock:
    """What a caller waits by: ``perf_counter_ns``, and sleep."""

    def now_ns(self) -> int:
        """Nanoseconds since a moment that does not change."""
        return time.perf_counter_ns()

    def wait_until(self, moment_ns: int) -> None:
        """Return at ``moment_ns``, or at once where it has passed.

        Sleeps, but for the last fifth of a millisecond, in which the thread only yields: spinning
        all the wait would keep clocks up that in life go down between calls.
        """
        left = moment_ns - time.perf_counter_ns() - _MARGIN_NS
        if left > 0:
            time.sleep(left / NS_PER_S)
        while time.perf_counter_ns() < moment_ns:
            time.sleep(0)


@dataclass(frozen=True)
class TimedCall:
    """One call of the detector.

    Attributes:
        due_ns: when it should have started; without a schedule when it did.
        ready_ns: when its caller was free to start it.
        start_ns, end_ns: when it did start, and returned.
        exits: index of the exit of each of its images.
        timings_ms: of each of its images.
    """

    due_ns: int
    ready_ns: int
    start_ns: int
    end_ns: int
    exits: tuple[int, ...]
    timings_ms: tuple[Mapping[str, float], ...]

    @property
    def latency_ms(self) -> float:
        """Milliseconds from the moment it was due to its return."""
        return (self.end_ns - self.due_ns) / NS_PER_MS

    @property
    def wall_ms(self) -> float:
        """Milliseconds of the call itself."""
        return (self.end_ns - self.start_ns) / NS_PER_MS

    @property
    def late(self) -> bool:
        """Whether its caller was still busy when it was due."""
        return self.ready_ns > self.due_ns


@dataclass(frozen=True)
class Slice:
    """Calls of one scenario in one round, by the moment they were due; ``wall_ms`` is of all."""

    calls: tuple[TimedCall, ...]
    wall_ms: float

    @property
    def images(self) -> int:
        """How many were run."""
        return sum(len(call.exits) for call in self.calls)


def due_times_ns(calls: int, rate_per_s: float | None) -> list[int | None]:
    """When each call is due, from the start of the slice: an absolute schedule, or none.

    The first is due after one interval, when all callers wait for it. A late call does not shift
    those after it. Counting latency from these moments, and not from when a delayed caller got
    round to a call, avoids what Gil Tene calls coordinated omission ("How NOT to Measure
    Latency", 2013; HdrHistogram and wrk2 correct for it likewise).
    """
    if rate_per_s is None:
        return [None] * calls
    return [round((call + 1) * NS_PER_S / rate_per_s) for call in range(calls)]


@dataclass
class _Run:
    """What the callers of a slice share."""

    detect: Detect
    batches: Iterator[tuple[list[PathOrImage], int | None]]
    clock: WallClock
    start_ns: int = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    calls: list[TimedCall] = field(default_factory=list)

    def work(self) -> None:
        """Make calls until none is left."""
        clock = self.clock
        while not self.stop.is_set():
            with self.lock:
                pictures, due = next(self.batches, (None, None))
            if pictures is None:
                return
            ready = clock.now_ns()
            if due is not None:
                clock.wait_until(self.start_ns + due)
            start = clock.now_ns()
            found = self.detect(pictures)
            end = clock.now_ns()
            planned = start if due is None else self.start_ns + due
            exits = tuple(result.exit_index for result in found)
            steps = tuple(result.timings_ms for result in found)
            self.calls.append(TimedCall(planned, ready, start, end, exits, steps))


def run_slice(
    detect: Detect,
    batches: Sequence[list[PathOrImage]],
    rate_per_s: float | None = None,
    callers: int = 1,
    clock: WallClock | None = None,
) -> Slice:
    """Make the calls, each by the first caller that is free.

    At a fixed rate a call waits until it is due. From then on everything counts, also what the
    operating system takes to wake the caller: it cannot be told from a machine that the detector
    itself keeps busy.

    Args:
        detect: runs the pictures of a call.
        batches: the pictures of every call.
        rate_per_s: calls a second, over all callers; None starts each when one has ended.
        callers: threads.
        clock: to wait by; the wall's if None.
    """
    clock = clock or WallClock()
    dues = due_times_ns(len(batches), rate_per_s)
    run = _Run(detect, iter(list(zip(batches, dues, strict=True))), clock)
    with _no_garbage_collection():
        run.start_ns = clock.now_ns()
        if callers == 1:
            run.work()
        else:
            _run_threads(run, callers)
    end_ns = max((call.end_ns for call in run.calls), default=run.start_ns)
    calls = tuple(sorted(run.calls, key=lambda call: call.due_ns))
    return Slice(calls, (end_ns - run.start_ns) / NS_PER_MS)


def _run_threads(run: _Run, callers: int) -> None:
    with ThreadPoolExecutor(callers) as pool:
        try:
            working = [pool.submit(run.work) for _ in range(callers)]
            wait(working, return_when=FIRST_EXCEPTION)
        finally:  # also when somebody presses Ctrl-C: no thread must use engines that are closed
            run.stop.set()
    for each in working:
        each.result()


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Keep the collector off all objects there are: their number is what makes it slow.

    Collecting before a slice then takes microseconds, and leaves the caches as they are.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect before and not within: a collection would fall on some call or other."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
