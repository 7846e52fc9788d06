"""One contender in a process of its own, run on command.

The first command is ``{"setup": {...}}``; the others ask for a run (``{"way": 0, "call":
"api", "calls": 1, "wake": false}``), for what it finds (``{"way": 0, "outputs": "FILE.npz"}``), or
for the memory so far (``{"memory": true}``). It times itself with
``perf_counter_ns`` around the call alone, so nothing of the pipe is in a time.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from pydantic import TypeAdapter

from dyninfer.benchmarks.baselines.child import Message, serve
from dyninfer.benchmarks.baselines.setup import (
    IN_PYTORCH,
    Action,
    CallKind,
    Contender,
    Kind,
    Setup,
)
from dyninfer.benchmarks.memory import peak_memory_mib

NS_PER_MS = 1e6


def open_contender(setup: Setup) -> Contender:
    """Open what ``setup`` describes; only what this contender needs is imported."""
    if setup.kind.value in IN_PYTORCH:
        from dyninfer.benchmarks.baselines.of_torch import TorchContender

        return TorchContender(setup)
    if setup.kind in (Kind.DYNINFER, Kind.LAST_EXIT):
        from dyninfer.benchmarks.baselines import of_bundle

        if setup.kind is Kind.DYNINFER:
            return of_bundle.DyninferContender(setup)
        return of_bundle.LastExitContender(setup)
    from dyninfer.benchmarks.baselines import of_onnx

    if setup.kind is Kind.NAIVE:
        return of_onnx.NaiveContender(setup)
    if setup.kind is Kind.FOREIGN:
        return of_onnx.ForeignContender(setup)
    return of_onnx.SingleGraphContender(setup)


class Runner:
    """Runs the contender and keeps the functions that were prepared."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._prepared: dict[tuple[int, CallKind], Action] = {}
        self._cpu_ns_after_run = 0

    def run(self, way: int, call: CallKind, calls: int, *, wake: bool) -> dict[str, float]:
        """Run ``calls`` times, after one run that is not timed with ``wake``.

        Returns:
            ``ms``, the median of the calls, and ``idle_cpu_ms``: processor time that the process
            used between its last run and this one, which is what its threads took from the others
            by spinning.
        """
        ran_before = bool(self._prepared)
        idle_ns = time.process_time_ns() - self._cpu_ns_after_run if ran_before else 0
        if (way, call) not in self._prepared:
            self._prepared[way, call] = self.contender.action(way, call)
        action = self._prepared[way, call]
        if wake:
            action()
        times_ns = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            action()
            times_ns.append(time.perf_counter_ns() - start)
        self._cpu_ns_after_run = time.process_time_ns()
        return {"ms": median(times_ns) / NS_PER_MS, "idle_cpu_ms": idle_ns / NS_PER_MS}


class Handler:
    """Answers the commands of a contest."""

    def __init__(self) -> None:
        self._runner: Runner | None = None

    def __call__(self, command: Message) -> Message:
        """See the module."""
        if "setup" in command:
            return self._open(TypeAdapter(Setup).validate_python(command["setup"]))
        assert self._runner is not None, "the first command is a setup"
        if "memory" in command:
            return {"peak_mib": peak_memory_mib()}
        way: int = command["way"]
        if "outputs" in command:
            found = self._runner.contender.outputs(way)
            np.savez(command["outputs"], **found)  # type: ignore[arg-type]  # any arrays
            return {}
        return self._runner.run(
            way, CallKind(command["call"]), command["calls"], wake=command["wake"]
        )

    def _open(self, setup: Setup) -> Message:
        start = time.perf_counter_ns()
        contender = open_contender(setup)
        load_ms = (time.perf_counter_ns() - start) / NS_PER_MS
        self._runner = Runner(contender)
        return {"load_ms": load_ms, "loaded_mib": peak_memory_mib(), "note": contender.note}


if __name__ == "__main__":
    serve(Handler())
