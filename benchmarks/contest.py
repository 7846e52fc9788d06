"""The parent's side of a contest: contenders in their own processes, run in turns.

Why a process each: ONNX Runtime's and PyTorch's worker threads keep spinning for some
milliseconds after a run, each process has one global thread pool of ONNX Runtime, and only a
process has a peak of memory. Between two runs the parent waits (``settle_ms``) until the last
contender's threads have gone to sleep, so every contender keeps the spinning that helps it within
a run, and none pays for another's. How much processor time the idle ones used all the same is
recorded with every contender (``idle_cpu_ms``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dyninfer.benchmarks.contenders import Call, Kind, Setup, Side
from dyninfer.benchmarks.interleaved import Run, run_rounds, warm_up
from dyninfer.errors import DyninferError

SETTLE_MS = 100.0
MEMORY_RUNS = 3
WARM_UP_RUNS = 5
END_TIMEOUT_S = 20.0


class WorkerError(DyninferError):
    """A contender's process ended before it answered."""


@dataclass(frozen=True)
class Entry:
    """A contender and the kind of call it is timed with."""

    kind: Kind
    call: Call

    @property
    def name(self) -> str:
        """For example ``dyninfer/api``."""
        return f"{self.kind.value}/{self.call.value}"


@dataclass(frozen=True)
class Samples:
    """Times of one entry on one side, in the order of the rounds.

    ``idle_cpu_ms`` is the median of the processor time that its process used between its runs.
    """

    entry: Entry
    side: Side
    times_ms: tuple[float, ...]
    warm_up_ms: tuple[float, ...]
    idle_cpu_ms: float


@dataclass(frozen=True)
class Memory:
    """Largest resident set of a fresh process: after loading, and after runs of both sides."""

    kind: Kind
    load_ms: float
    loaded_mib: float
    peak_mib: float


class Worker:
    """A contender's process. A context manager: leaving it ends the process.

    Raises:
        WorkerError: the process ends early; its own message is on standard error.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dyninfer.benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.loaded = self._ask(asdict(setup))

    def run(self, side: Side, call: Call) -> dict[str, float]:
        """Run once; see :meth:`dyninfer.benchmarks.worker.Runner.run`."""
        return self._ask({"side": side.value, "call": call.value})

    def peak_mib(self) -> float:
        """Largest resident set so far."""
        return self._ask({"memory": True})["peak_mib"]

    def _ask(self, command: Mapping[str, Any]) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(f"the process of {self._setup.kind.value} ended; see above for why")
        return json.loads(answer)  # type: ignore[no-any-return]  # written by the worker

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def time_in_turns(
    setups: Sequence[Setup],
    entries: Sequence[Entry],
    rounds: int,
    settle_ms: float = SETTLE_MS,
    on_round: Callable[[], object] = lambda: None,
) -> list[Samples]:
    """Time all entries in turns, first on easy images, then on hard ones.

    Args:
        setups: one for every kind among the entries.
        entries: what is timed in every round.
        rounds: for each side.
        settle_ms: wait before every run.
        on_round: called after each round.
    """
    with ExitStack() as stack:
        workers = {setup.kind: stack.enter_context(Worker(setup)) for setup in setups}
        found = []
        for side in Side:
            found += _time_side(workers, entries, side, rounds, settle_ms, on_round)
        return found


def _time_side(
    workers: Mapping[Kind, Worker],
    entries: Sequence[Entry],
    side: Side,
    rounds: int,
    settle_ms: float,
    on_round: Callable[[], object],
) -> list[Samples]:
    idle_cpu_ms: dict[str, list[float]] = {entry.name: [] for entry in entries}

    def run_of(entry: Entry) -> Run:
        def run() -> float:
            time.sleep(settle_ms / 1e3)
            answer = workers[entry.kind].run(side, entry.call)
            idle_cpu_ms[entry.name].append(answer["idle_cpu_ms"])
            return answer["ms"]

        return run

    runs = {entry.name: run_of(entry) for entry in entries}
    warm = {name: tuple(warm_up(run, WARM_UP_RUNS)) for name, run in runs.items()}
    times = run_rounds(runs, rounds, on_round)
    return [
        Samples(
            entry,
            side,
            tuple(times[entry.name]),
            warm[entry.name],
            median(idle_cpu_ms[entry.name]),
        )
        for entry in entries
    ]


def measure_memory(setup: Setup, runs: int = MEMORY_RUNS) -> Memory:
    """Peak memory of a fresh process that opens the contender and runs both sides in turns."""
    with Worker(setup) as worker:
        for _ in range(runs):
            for side in Side:
                worker.run(side, Call.API)
        loaded = worker.loaded
        return Memory(setup.kind, loaded["load_ms"], loaded["loaded_mib"], worker.peak_mib())
