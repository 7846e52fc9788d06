"""What walks a route: a batch goes through a plan, split by decisions.

A single image whose head is not started early, and which may not come back to an earlier exit, has
a shorter walk to the same end: :mod:`dyninfer.runtime.single`.

What a stage runs on is the business of a :class:`dyninfer.runtime.stage_runner.StageRunner`:
engines on a device, plain ONNX Runtime, the source model, a server.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

import numpy as np

from dyninfer.bundle.manifest import EASINESS
from dyninfer.engines.base import HostRead, OnHost
from dyninfer.engines.deadline import Deadline
from dyninfer.errors import EngineRunError
from dyninfer.routing.policy import AlwaysHard, Blind, Later, Policy
from dyninfer.runtime.decisions import decide, no_signal, signal_of, split
from dyninfer.runtime.plan import END, Decision, Ending, Plan, Step, gather_place
from dyninfer.runtime.single import SingleWalk
from dyninfer.runtime.stage_runner import (
    Arrays,
    BatchResult,
    Failure,
    Group,
    Signal,
    StageRunner,
    T,
    Trace,
)
from dyninfer.spans import GATHER, READ_BACK
from dyninfer.types import Float32Array, Int64Array


def execute(
    plan: Plan,
    runner: StageRunner[T],
    batch: int,
    policy: Policy,
    *,
    first_image: int = 0,
    speculative_head: bool = False,
    degrade: bool = False,
    deadline: Deadline | None = None,
) -> BatchResult:
    """Run a batch along a plan, each image the way that the policy decides.

    On a device everything is only enqueued; the host waits for a signal that the policy reads, and
    at the end for the outputs and for the easiness that nobody waited for.

    Args:
        plan: the route.
        runner: runs its stages.
        batch: number of images N, at least 1.
        policy: decides; one that is :class:`dyninfer.routing.policy.Blind` is not kept waiting.
        first_image: position of the first image among those of the call.
        speculative_head: start the first head for all images while the easiness travels to the
            host; what it makes of images that go on is thrown away. Worth it where the head is
            cheap beside the wait, as on a GPU in batches of one.
        degrade: where a stage behind an exit fails, let its images leave by that exit.
        deadline: after it, no further segment is begun.

    Raises:
        PolicyError: the policy's answer is not one outcome for each image.
        EngineRunError: a stage failed, and there is no exit that had worked for its images; or
            they were not to leave by that.
        DeadlineError: the same of the deadline.
    """
    if batch == 1 and not (speculative_head or degrade):
        return SingleWalk(runner, policy, first_image).run(plan, deadline)
    walk = _Walk(plan, runner, batch, policy, first_image, speculative_head, degrade, deadline)
    return walk.run()


def trace(
    plan: Plan, runner: StageRunner[T], batch: int, keep: Collection[str] = frozenset()
) -> Trace:
    """Run every way for every image of a batch, each stage once.

    Args:
        plan: the route.
        runner: runs its stages.
        batch: number of images N, at least 1.
        keep: stages whose outputs are wanted as well.
    """
    walk = _EveryWay(plan, runner, batch, keep)
    result = walk.run()
    signals: dict[int, Float32Array] = {s.point.index: s.values for s in result.signals}
    decisions = sum(segment.decide is not None for segment in plan)
    ways = {group.way: group.outputs for group in result.groups}
    return Trace(
        tuple(signals.get(index) for index in range(decisions)),
        tuple(ways[way] for way in range(len(ways))),
        walk.kept,
    )


@dataclass(slots=True)
class _Crowd(Generic[T]):
    """Images that came to a segment together.

    ``rows`` are their positions in the batch, ``numbers`` the same as Python's own, and ``tensors``
    what was computed for exactly these so far, by name. ``retreat`` is where they leave if what
    follows fails: an exit, and a crowd with their positions in it for which it has worked.
    """

    segment: int
    rows: Int64Array
    numbers: Sequence[int]
    tensors: dict[str, T]
    retreat: tuple[Ending, _Crowd[T], Int64Array | None] | None = None


@dataclass(slots=True)
class _Leaving(Generic[T]):
    """Images (all of a crowd, or some) on their way out, their outputs on the way to the host."""

    way: int
    rows: Sequence[int]
    reads: Mapping[str, HostRead]
    crowd: _Crowd[T]
    where: Int64Array | None


_Split = Sequence[tuple[int, "Int64Array | None"]]
"""Outcomes, each with the positions of its images in the crowd; None for all of them."""


class _Walk(Generic[T]):
    """One batch on its way."""

    def __init__(
        self,
        plan: Plan,
        runner: StageRunner[T],
        batch: int,
        policy: Policy,
        first_image: int,
        speculative_head: bool,
        degrade: bool,
        deadline: Deadline | None,
    ) -> None:
        self._plan = plan
        self._runner = runner
        self._policy = policy
        self._blind = isinstance(policy, Blind)
        self._wants_scores = not self._blind or isinstance(policy, Later)
        self._first_image = first_image
        self._speculative_head = speculative_head and not self._blind
        self._degrade = degrade
        self._deadline = deadline
        self._crowds: deque[_Crowd[T]] = deque([_Crowd(0, np.arange(batch), range(batch), {})])
        self._leaving: deque[_Leaving[T]] = deque()
        self._unread: list[tuple[Decision, Sequence[int], Mapping[str, T]]] = []
        self._result = BatchResult(np.full(batch, np.nan, np.float32))

    def run(self) -> BatchResult:
        """Run until every image has taken its way."""
        while self._crowds:
            crowd = self._crowds.popleft()
            try:
                self._pass(crowd)
            except EngineRunError as error:
                self._retreat(crowd, None, error)
        for decision, numbers, made in self._unread:
            try:
                self._note_signal(decision, numbers, self._read_signal(decision, made))
            except EngineRunError as error:
                if not self._degrade:
                    raise
                self._result.failures.append(Failure(error, numbers))  # and no easiness is known
        self._arrive_all()
        result = self._result
        result.retreat = self._leave_again
        # or what the batch holds on a device would wait for the garbage collector, in any thread
        self._result = weakref.proxy(result)
        return result

    def _arrive_all(self) -> None:
        while self._leaving:
            leaving = self._leaving.popleft()
            try:
                self._arrive(leaving)
            except EngineRunError as error:
                self._retreat(leaving.crowd, leaving.where, error)

    def _keep_outputs(self, way: int) -> None:
        """Copy the outputs of images that took a way: its head is about to write over them.

        Images whose outputs do not arrive retreat, as they would later.
        """
        waiting, lost = deque[_Leaving[T]](), []
        for leaving in self._leaving:
            try:
                if leaving.way == way:
                    arrays = {name: np.array(read.numpy()) for name, read in leaving.reads.items()}
                    leaving.reads = {name: OnHost(array) for name, array in arrays.items()}
                waiting.append(leaving)
            except EngineRunError as error:
                lost.append((leaving, error))
        self._leaving = waiting
        groups = self._result.groups
        for place, group in enumerate(groups):
            if group.way == way:
                kept = {name: np.array(array) for name, array in group.outputs.items()}
                groups[place] = group._replace(outputs=kept)
        for leaving, failure in lost:
            self._retreat(leaving.crowd, leaving.where, failure)

    def _leave_again(
        self, group: Group, places: Sequence[int], error: EngineRunError
    ) -> Sequence[Group]:
        """See :data:`dyninfer.runtime.stage_runner.Retreat`."""
        arrived = len(self._result.groups)
        leaving: _Leaving[T] = group.origin
        where = np.array(places) if leaving.where is None else leaving.where[places]
        self._retreat(leaving.crowd, where, error)
        self._arrive_all()
        return self._result.groups[arrived:]

    def _arrive(self, leaving: _Leaving[T]) -> None:
        """Wait for the outputs of images that have left."""
        start = time.perf_counter_ns()
        outputs = {name: read.numpy() for name, read in leaving.reads.items()}
        self._note(READ_BACK, start, leaving.rows)
        self._result.groups.append(Group(leaving.way, leaving.rows, outputs, leaving))

    def _pass(self, crowd: _Crowd[T]) -> None:
        """Take a crowd through its segment."""
        if self._deadline is not None and crowd.segment:
            self._deadline.check()
        segment = self._plan[crowd.segment]
        for step in segment.run:
            crowd.tensors.update(self._run(step, crowd))
        if segment.decide is None:
            assert segment.end is not None  # a segment decides, ends, or both
            self._leave(segment.end, crowd, None, None)
            return
        early: Mapping[str, T] | None = None
        try:
            reading = self._start_signal(segment.decide, crowd)
            head = segment.end.head if segment.end else None
            if self._speculative_head and head and crowd.segment == 0 and reading:
                with suppress(EngineRunError):  # it runs again for images that do leave here
                    early = self._run(head, crowd)
            split = self._choose(segment.decide, crowd, reading)
        except EngineRunError as error:
            if not (self._degrade and segment.end):
                raise
            self._leave(segment.end, crowd, None, None)  # its body has worked
            self._result.failures.append(Failure(error, crowd.numbers))
            return
        for outcome, where in split:
            target = segment.decide.outcomes[outcome]
            if target == END:
                assert segment.end is not None  # the plan says so
                self._leave_or_retreat(segment.end, crowd, where, early)
            else:
                keeps = segment.decide.keeps[outcome]
                further = self._narrowed(keeps, crowd, where, target)
                if self._degrade and segment.end:
                    further.retreat = segment.end, crowd, where
                self._crowds.append(further)

    def _leave_or_retreat(
        self,
        end: Ending,
        crowd: _Crowd[T],
        where: Int64Array | None,
        early: Mapping[str, T] | None,
    ) -> None:
        try:
            self._leave(end, crowd, where, early)
        except EngineRunError as error:
            self._retreat(crowd, where, error)

    def _retreat(self, crowd: _Crowd[T], where: Int64Array | None, error: EngineRunError) -> None:
        """Let images of a crowd (all, or some) leave by the last exit that worked for them."""
        if crowd.retreat is None:
            raise error
        end, origin, places = crowd.retreat
        if where is not None:
            places = where if places is None else places[where]
        self._keep_outputs(end.way)
        rows = origin.numbers if places is None else origin.rows[places].tolist()
        self._result.failures.append(Failure(error, rows))
        self._leave_or_retreat(end, origin, places, None)

    def _start_signal(self, decision: Decision, crowd: _Crowd[T]) -> HostRead | None:
        """Run what decides; an easiness is reported even if nobody reads it, scores are not."""
        if decision.step is None or not (self._wants_scores or decision.signal == EASINESS):
            return None
        made = self._run(decision.step, crowd)
        if self._blind:  # it comes to the host with the outputs
            self._unread.append((decision, crowd.numbers, made))
            return None
        return self._read_signal(decision, made)

    def _read_signal(self, decision: Decision, made: Mapping[str, T]) -> HostRead:
        name = decision.signal
        return self._runner.read({name: made[name]}, None)[name]

    def _choose(self, decision: Decision, crowd: _Crowd[T], reading: HostRead | None) -> _Split:
        """Ask the policy."""
        images = crowd.rows + self._first_image if self._first_image else crowd.rows
        if reading is None:
            known = no_signal(decision, len(images))
        else:
            known = self._note_signal(decision, crowd.numbers, reading).copy()
        chosen = decide(self._policy, known, decision, images)
        return split(chosen, len(images), len(decision.outcomes), self._policy)

    def _note_signal(
        self, decision: Decision, numbers: Sequence[int], reading: HostRead
    ) -> Float32Array:
        """Wait for a signal and take it down."""
        start = time.perf_counter_ns()
        values = signal_of(decision, len(numbers), reading.numpy())
        self._note(READ_BACK, start, numbers)
        self._result.signals.append(Signal(decision.point, numbers, values))
        if decision.signal == EASINESS:
            whole = len(numbers) == len(self._result.easiness)
            self._result.easiness[slice(None) if whole else numbers] = values  # a slice is quicker
        return values

    def _leave(
        self,
        end: Ending,
        crowd: _Crowd[T],
        where: Int64Array | None,
        early: Mapping[str, T] | None,
    ) -> None:
        """Run the head for the images that leave here, or take what the body or it made already."""
        if where is None or end.head is None or end.head.images or early is not None:
            self._leave_by(end, crowd, where, early)
            return
        with self._runner.aside():  # others go on meanwhile, from what is not changed any more
            self._leave_by(end, crowd, where, None)

    def _leave_by(
        self,
        end: Ending,
        crowd: _Crowd[T],
        where: Int64Array | None,
        early: Mapping[str, T] | None,
    ) -> None:
        numbers = crowd.numbers if where is None else crowd.rows[where].tolist()
        chosen = where
        if end.head is None:
            made: Mapping[str, T] = crowd.tensors
        elif early is not None:
            made = early
        else:
            made, chosen = self._run(end.head, self._narrowed(end.head.reads, crowd, where)), None
        start = time.perf_counter_ns()
        reads = self._runner.read({name: made[name] for name in end.outputs}, chosen)
        self._note(READ_BACK, start, numbers)
        self._leaving.append(_Leaving(end.way, numbers, reads, crowd, where))

    def _narrowed(
        self,
        names: frozenset[str],
        crowd: _Crowd[T],
        where: Int64Array | None,
        target: int = END,
    ) -> _Crowd[T]:
        """Some images of a crowd, on their way to a segment, with the named tensors of theirs."""
        if where is None:
            return self._whole(crowd, target)
        kept = {name: tensor for name, tensor in crowd.tensors.items() if name in names}
        rows = crowd.rows[where]
        numbers = rows.tolist()
        if kept:
            start = time.perf_counter_ns()
            # other splits have buffers of their own: none must be gathered onto itself
            place = gather_place(crowd.segment, target)
            kept = dict(self._runner.gather(place, kept, where))
            self._note(GATHER, start, numbers)
        return _Crowd(target, rows, numbers, kept)

    def _whole(self, crowd: _Crowd[T], target: int) -> _Crowd[T]:
        """All of a crowd, on its way to a segment: nobody else goes on with it."""
        if self._degrade:  # it may have to come back, with these tensors
            return _Crowd(target, crowd.rows, crowd.numbers, dict(crowd.tensors))
        crowd.segment = target
        return crowd

    def _run(self, step: Step, crowd: _Crowd[T]) -> Mapping[str, T]:
        for name in step.images:
            if name not in crowd.tensors:
                crowd.tensors[name] = self._images(name, crowd)
        start = time.perf_counter_ns()
        outputs = self._runner.run(step.stage, crowd.tensors)
        self._note(step.stage, start, crowd.numbers)
        return outputs

    def _images(self, name: str, crowd: _Crowd[T]) -> T:
        """The images of an input for a crowd."""
        images = self._runner.feed(name, crowd.rows)
        if images.shape[0] == len(crowd.numbers):
            return images
        start = time.perf_counter_ns()
        gathered = self._runner.gather("fed", {name: images}, crowd.rows)
        self._note(GATHER, start, crowd.numbers)
        return gathered[name]

    def _note(self, name: str, start_ns: int, rows: Sequence[int]) -> None:
        """Take down what was begun at ``start_ns`` and has ended now."""
        self._result.spans.append((name, (time.perf_counter_ns() - start_ns) / 1e6, rows))


class _EveryWay(_Walk[T]):
    """A walk on which every image takes every outcome, and every signal is taken down."""

    def __init__(
        self, plan: Plan, runner: StageRunner[T], batch: int, keep: Collection[str]
    ) -> None:
        super().__init__(
            plan, runner, batch, AlwaysHard(), 0, False, False, None
        )  # it is not asked
        self._keep = keep
        self.kept: dict[str, Arrays] = {}

    def _run(self, step: Step, crowd: _Crowd[T]) -> Mapping[str, T]:
        made = super()._run(step, crowd)
        if step.stage in self._keep:
            reads = self._runner.read(made, None)
            self.kept[step.stage] = {name: np.array(read.numpy()) for name, read in reads.items()}
        return made

    def _start_signal(self, decision: Decision, crowd: _Crowd[T]) -> HostRead | None:
        if decision.step is None:
            return None
        made = self._run(decision.step, crowd)
        return self._read_signal(decision, made)

    def _whole(self, crowd: _Crowd[T], target: int) -> _Crowd[T]:
        """A copy, because the same images go on to other segments as well."""
        return _Crowd(target, crowd.rows, crowd.numbers, dict(crowd.tensors))

    def _choose(self, decision: Decision, crowd: _Crowd[T], reading: HostRead | None) -> _Split:
        if reading is not None:
            self._note_signal(decision, crowd.numbers, reading)
        return [(outcome, None) for outcome in range(len(decision.outcomes))]
