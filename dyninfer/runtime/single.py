"""The way of a single image, which is what most calls bring."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from dyninfer.bundle.manifest import EASINESS
from dyninfer.engines.deadline import Deadline
from dyninfer.errors import EngineRunError
from dyninfer.routing.policy import Blind, Later, Policy, decider_of_one
from dyninfer.runtime.decisions import decide, no_signal, only_outcome, signal_of
from dyninfer.runtime.plan import END, Decision, Ending, Plan, Step
from dyninfer.runtime.stage_runner import BatchResult, Group, Signal, StageRunner, T
from dyninfer.spans import READ_BACK
from dyninfer.types import Float32Array

_NUMBERS = range(1)
_ROWS, _UNKNOWN = np.zeros(1, np.int64), np.full(1, np.nan, np.float32)
_UNKNOWN.flags.writeable = False  # it is the same array every time


class SingleWalk(Generic[T]):
    """One image on its way: nothing to split, to gather or to come back to.

    It asks for the same, in the same order, as the walk of a batch in
    :mod:`dyninfer.runtime.executor`, whose arguments it takes; only less has to be done in between.
    """

    def __init__(self, runner: StageRunner[T], policy: Policy, first_image: int) -> None:
        self._runner = runner
        self._policy = policy
        self._decide_one = decider_of_one(policy)
        self._blind = isinstance(policy, Blind)
        self._wants_scores = not self._blind or isinstance(policy, Later)
        self._first_image = first_image
        self._tensors: dict[str, T] = {}
        self._unread: list[tuple[Decision, Mapping[str, T]]] = []
        self._result = BatchResult(_UNKNOWN, retreat=_raise)

    def run(self, plan: Plan, deadline: Deadline | None) -> BatchResult:
        """Run until the image has taken its way."""
        segment = plan[0]
        while True:
            for step in segment.run:
                self._tensors.update(self._run(step))
            decision = segment.decide
            target = END if decision is None else decision.outcomes[self._outcome(decision)]
            if target == END:
                assert segment.end is not None  # the plan says so
                self._leave(segment.end)
                return self._result
            segment = plan[target]
            if deadline is not None:
                deadline.check()

    def _run(self, step: Step) -> Mapping[str, T]:
        for name in step.images:
            if name not in self._tensors:
                self._tensors[name] = self._runner.feed(name, _ROWS)
        start = time.perf_counter_ns()
        outputs = self._runner.run(step.stage, self._tensors)
        self._note(step.stage, start)
        return outputs

    def _outcome(self, decision: Decision) -> int:
        """Ask the policy, which is shown the signal if it reads any."""
        known = None
        if decision.step is not None and (self._wants_scores or decision.signal == EASINESS):
            made = self._run(decision.step)
            if self._blind:  # it comes to the host with the outputs
                self._unread.append((decision, made))
            else:
                start = time.perf_counter_ns()
                known = self._signal(decision, made)
                self._note(READ_BACK, start)
        if self._decide_one is not None and (self._blind or decision.signal == EASINESS):
            return self._decide_one(math.nan if known is None else known.item(), decision.point)
        shown = no_signal(decision, 1) if known is None else known.copy()
        images = _ROWS + first if (first := self._first_image) else _ROWS.copy()  # the policy's own
        chosen = decide(self._policy, shown, decision, images)
        return only_outcome(chosen, len(decision.outcomes), self._policy)

    def _signal(self, decision: Decision, made: Mapping[str, T]) -> Float32Array:
        """Wait for a signal and take it down."""
        name = decision.signal
        reading = self._runner.read({name: made[name]}, None)[name]
        values = signal_of(decision, 1, reading.numpy())
        self._result.signals.append(Signal(decision.point, _NUMBERS, values))
        if name == EASINESS:
            # who learns may write to what is shown to them; who decides is shown a copy
            self._result.easiness = values.copy() if self._blind else values
        return values

    def _leave(self, end: Ending) -> None:
        """Run the head, if there is one, and wait for the outputs and for what nobody has read."""
        made = self._tensors if end.head is None else self._run(end.head)
        start = time.perf_counter_ns()
        reads = self._runner.read({name: made[name] for name in end.outputs}, None)
        for decision, signal in self._unread:
            self._signal(decision, signal)
        outputs = {name: read.numpy() for name, read in reads.items()}
        self._note(READ_BACK, start)
        self._result.groups.append(Group(end.way, _NUMBERS, outputs))

    def _note(self, name: str, start_ns: int) -> None:
        """Take down what was begun at ``start_ns`` and has ended now."""
        self._result.spans.append((name, (time.perf_counter_ns() - start_ns) / 1e6, _NUMBERS))


def _raise(_group: Group, _places: Sequence[int], error: EngineRunError) -> Sequence[Group]:
    """See :data:`dyninfer.runtime.stage_runner.Retreat`: there is nowhere to go."""
    raise error
