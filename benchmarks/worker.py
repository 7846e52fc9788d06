"""One contender in a process of its own, run on command: JSON lines in, JSON lines out.

The first line is a :class:`dyninfer.benchmarks.contenders.Setup`; every further one asks for a
run (``{"side": "easy", "call": "api"}``) or for the memory so far (``{"memory": true}``). The
process ends with its input. It times itself with ``perf_counter_ns`` around the call alone, so
nothing of the pipe is in a time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from dyninfer.benchmarks.contenders import (
    Action,
    Call,
    Contender,
    Kind,
    Setup,
    Side,
    open_contender,
)
from dyninfer.benchmarks.memory import peak_memory_mib

NS_PER_MS = 1e6


def parse_setup(line: str) -> Setup:
    """The setup that the parent sent."""
    fields = json.loads(line)
    return Setup(**{**fields, "kind": Kind(fields["kind"])})


class Runner:
    """Runs the contender and keeps the functions that were prepared."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._prepared: dict[tuple[Side, Call], Action] = {}
        self._cpu_ns_after_run: int | None = None

    def run(self, side: Side, call: Call) -> dict[str, float]:
        """Run once.

        Returns:
            ``ms``, and ``idle_cpu_ms``: processor time that the process used between its last
            run and this one, which is what its threads took from the others by spinning.
        """
        idle_ns = self._idle_cpu_ns()
        if (side, call) not in self._prepared:
            self._prepared[side, call] = self._contender.action(side, call)
        action = self._prepared[side, call]
        start = time.perf_counter_ns()
        action()
        elapsed_ns = time.perf_counter_ns() - start
        self._cpu_ns_after_run = time.process_time_ns()
        return {"ms": elapsed_ns / NS_PER_MS, "idle_cpu_ms": idle_ns / NS_PER_MS}

    def _idle_cpu_ns(self) -> int:
        if self._cpu_ns_after_run is None:
            return 0
        return time.process_time_ns() - self._cpu_ns_after_run


def serve(commands: IO[str], answers: IO[str]) -> None:
    """Open the contender and answer commands until there are no more."""

    def answer(content: Mapping[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    setup = parse_setup(commands.readline())
    start = time.perf_counter_ns()
    runner = Runner(open_contender(setup))
    load_ms = (time.perf_counter_ns() - start) / NS_PER_MS
    answer({"load_ms": load_ms, "loaded_mib": peak_memory_mib()})
    for line in commands:
        command = json.loads(line)
        if command.get("memory"):
            answer({"peak_mib": peak_memory_mib()})
        else:
            answer(runner.run(Side(command["side"]), Call(command["call"])))


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
