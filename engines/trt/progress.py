"""A build under way: TensorRT's nested phases as one rising fraction, and Ctrl-C cancelling it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dyninfer.engines.trt.library import Library

Report = Callable[[float, str], None]
"""(share that is done, in [0, 1]; the phase under way)."""
POLL_SECONDS = 0.1
ResultT = TypeVar("ResultT")


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Phases within phases, as one number.

    A phase counts its finished steps, and for the step under way the furthest of the phases
    within it. What was reported never falls back: a phase may begin again for another subgraph.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._highest = 0.0
        self._lock = threading.Lock()  # phases report from threads of the builder's own

    def start(self, name: str, parent: str | None, steps: int) -> float:
        """A phase begins; returns the share of the whole that is done."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))
            return self._update()

    def step(self, name: str, index: int) -> float:
        """Step ``index``, from 0, of a phase has ended; returns the share that is done."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = index + 1
            return self._update()

    def finish(self, name: str) -> float:
        """A phase has ended; returns the share of the whole that is done."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._highest = 1.0
            return self._update()

    def _update(self) -> float:
        roots = [name for name, phase in self._phases.items() if phase.parent not in self._phases]
        self._highest = max([self._highest, *map(self._fraction, roots)])
        return self._highest

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        within = [self._fraction(other) for other, p in self._phases.items() if p.parent == name]
        return min((phase.done + max(within, default=0.0)) / phase.steps, 1.0)


def make_monitor(library: Library, report: Report, cancelled: threading.Event) -> Any:
    """An ``IProgressMonitor`` of a library that has one.

    ``report`` is told of every step, from any thread, and must not raise. Once ``cancelled`` is
    set, the builder is asked to give up at its next step.
    """
    base: Any = library.module.IProgressMonitor
    tree = PhaseTree()

    class Monitor(base):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            report(tree.start(phase_name, parent_phase, num_steps), phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(tree.step(phase_name, step), phase_name)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            share = tree.finish(phase_name)
            if not cancelled.is_set():  # phases are finished then as well, but not done
                report(share, phase_name)

    return Monitor()


@dataclass
class Attempt(Generic[ResultT]):
    """What the working thread leaves behind."""

    results: list[ResultT] = field(default_factory=list)
    error: BaseException | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


def run_cancellable(work: Callable[[threading.Event], ResultT], name: str) -> ResultT:
    """Run ``work`` in a thread of its own; what it raises is raised here.

    A Ctrl-C that arrives while C++ calls back into Python would be raised inside C++, which ends
    the process. Here it sets the event that ``work`` gets, and is raised once ``work`` has ended.
    It should look at the event from time to time and end early when it is set.
    """
    attempt: Attempt[ResultT] = Attempt()

    def target() -> None:
        attempt.go.wait()
        try:
            if not attempt.cancelled.is_set():
                attempt.results.append(work(attempt.cancelled))
        except BaseException as error:  # raised again below, in the caller's thread
            attempt.error = error
        finally:  # also where nothing was begun: the interrupt may have come just after go
            attempt.ended.set()

    _wait_for(threading.Thread(target=target, name=name, daemon=True), attempt)
    if attempt.error is not None:
        raise attempt.error
    return attempt.results[0]


def _wait_for(thread: threading.Thread, attempt: Attempt[ResultT]) -> None:
    """Start the thread and wait; an interrupt asks it to give up, and is raised once it has.

    Leaving C++ behind at work would crash the interpreter when it ends. So the thread begins only
    when ``go`` is set, for an interrupted start does not tell whether it runs; and not Thread.join
    waits for it, which up to Python 3.12 takes the thread for ended when it is interrupted.
    """
    interrupt: BaseException | None = None
    try:
        thread.start()
        attempt.go.set()
    except BaseException as error:
        interrupt = error
        attempt.cancelled.set()
    while attempt.go.is_set() and not attempt.ended.is_set():
        try:
            attempt.ended.wait(POLL_SECONDS)
        except BaseException as error:
            interrupt = error
            attempt.cancelled.set()
    if interrupt is not None:
        attempt.go.set()
        raise interrupt
