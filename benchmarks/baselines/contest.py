"""Contenders in their own processes, run in turns.

Why a process each: ONNX Runtime's and PyTorch's worker threads keep spinning for some
milliseconds after a run, each process has one global thread pool of ONNX Runtime, and only a
process has a peak of memory. Between two runs the parent waits (``settle_ms``) until the last
contender's threads have gone to sleep, so every contender keeps the spinning that helps it within
a run, and none pays for another's. How much processor time the idle ones used all the same is
recorded with every contender (``idle_cpu_ms``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from dyninfer.benchmarks.baselines.child import Child, ChildError
from dyninfer.benchmarks.baselines.setup import DYNINFER, Arrays, CallKind, Setup
from dyninfer.benchmarks.latency.record import ContenderMemory
from dyninfer.evaluation.interleaved import run_rounds, warm_up

MODULE = "dyninfer.benchmarks.baselines.worker"
SETTLE_MS = 100.0
MEMORY_RUNS = 3
WARM_UP_RUNS = 5
TURN_MS = 20.0
MAX_CALLS = 20


@dataclass(frozen=True)
class Entry:
    """A contender, by name, and the kind of call it is timed with."""

    contender: str
    call: CallKind

    @property
    def name(self) -> str:
        """For example ``dyninfer`` or ``dyninfer, engines only``."""
        return self.contender + (", engines only" if self.call is CallKind.ENGINES else "")


@dataclass(frozen=True)
class ContestTimes:
    """Times of one entry on one way, in the order of the rounds.

    ``idle_cpu_ms`` is the median of the processor time that its process used between its runs.
    """

    entry: Entry
    way: int
    times_ms: tuple[float, ...]
    idle_cpu_ms: float


class Worker(Child):
    """A contender's process.

    Raises:
        ChildError: it cannot be opened, or its process ends early.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(MODULE)
        try:
            answer = self.ask({"setup": asdict(setup)})
        except BaseException:
            self.kill()
            raise
        self.load_ms: float = answer["load_ms"]
        self.loaded_mib: float = answer["loaded_mib"]
        self.note: str = answer["note"]

    def run(
        self, way: int, call: CallKind, calls: int = 1, *, wake: bool = False
    ) -> dict[str, float]:
        """Run; see :meth:`dyninfer.benchmarks.baselines.worker.Runner.run`."""
        return self.ask({"way": way, "call": call.value, "calls": calls, "wake": wake})

    def outputs(self, way: int, path: Path) -> Arrays:
        """What it finds in the image, by way of a file at ``path`` (``.npz``)."""
        self.ask({"way": way, "outputs": str(path)})
        with np.load(path) as arrays:
            return dict(arrays)


class Contest(ExitStack):
    """Opened contenders, of which some may drop out.

    ``unavailable`` maps those that did to the reason in one line. dyninfer may not: its failure
    ends the contest. A context manager.
    """

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, Worker] = {}
        self.unavailable: dict[str, str] = {}

    def open(self, name: str, setup: Setup) -> None:
        """Start a contender; it drops out at once where it cannot be opened."""

        def start() -> None:
            self.workers[name] = self.enter_context(Worker(setup))

        self.attempt(name, start)

    def attempt(self, name: str, action: Callable[[], object]) -> None:
        """Do something with a contender that drops out if that fails.

        Raises:
            ChildError: it is dyninfer.
        """
        try:
            action()
        except ChildError as error:
            if name == DYNINFER:
                raise ChildError(f"{name} cannot be timed: {error}") from None
            self.unavailable[name] = str(error)
            self.workers.pop(name, None)

    def time_in_turns(
        self,
        entries: Sequence[Entry],
        way: int,
        rounds: int,
        settle_ms: float = SETTLE_MS,
        on_round: Callable[[], object] = lambda: None,
    ) -> list[ContestTimes]:
        """Time entries in turns, after a warm-up of each; those that drop out are left out.

        A warm-up waits once, for the threads of the one before it, and then no longer: nobody else
        runs between its calls.
        A turn is one call, or of a contender whose calls take less than half of :data:`TURN_MS`
        as many as fill that: the turn's time is then their median. Where there is such a
        contender, all make one call that is not timed first, since caches are cold after a wait.
        """
        turns = [_Turn(self, entry, way, settle_ms) for entry in entries]
        for turn in turns:
            turn.settle()
            turn.calls = calls_in_a_turn(warm_up(turn.run, WARM_UP_RUNS)[-1])
            turn.idle_cpu_ms.clear()  # nobody else ran in between
        wake = any(turn.calls > 1 for turn in turns)
        for turn in turns:
            turn.wake = wake
        times = run_rounds({turn.entry.name: turn for turn in turns}, rounds, on_round)
        return [
            ContestTimes(turn.entry, way, tuple(times[turn.entry.name]), median(turn.idle_cpu_ms))
            for turn in turns
            if turn.entry.contender in self.workers
        ]


@dataclass
class _Turn:
    """Runs an entry once; NaN where its contender has dropped out."""

    contest: Contest
    entry: Entry
    way: int
    settle_ms: float
    calls: int = 1
    wake: bool = False
    idle_cpu_ms: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        self.settle()
        return self.run()

    def settle(self) -> None:
        """Wait until the threads of whoever ran last sleep."""
        if self.entry.contender in self.contest.workers:
            time.sleep(self.settle_ms / 1e3)

    def run(self) -> float:
        """Run at once."""
        spent = math.nan

        def ask() -> None:
            nonlocal spent
            worker = self.contest.workers[self.entry.contender]
            answer = worker.run(self.way, self.entry.call, self.calls, wake=self.wake)
            self.idle_cpu_ms.append(answer["idle_cpu_ms"])
            spent = answer["ms"]

        if self.entry.contender in self.contest.workers:
            self.contest.attempt(self.entry.contender, ask)
        return spent


def calls_in_a_turn(call_ms: float) -> int:
    """So many calls of this length fill :data:`TURN_MS`; at least 1, at most MAX_CALLS.

    One for NaN, the time of a contender that has dropped out.
    """
    return 1 if math.isnan(call_ms) else max(1, min(MAX_CALLS, int(TURN_MS / call_ms)))


def measure_memory(name: str, setup: Setup, ways: int) -> ContenderMemory:
    """Peak memory of a fresh process that opens the contender and runs its ways in turns."""
    with Worker(setup) as worker:
        for way in MEMORY_RUNS * [*range(ways)]:
            worker.run(way, CallKind.API)
        peak_mib = worker.ask({"memory": True})["peak_mib"]
        return ContenderMemory(name, worker.load_ms, worker.loaded_mib, peak_mib)
