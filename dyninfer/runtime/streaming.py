"""Frames on their way: several at once are decoded, prepared and run, and come out in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from dyninfer.engines.base import SendsAhead
from dyninfer.errors import InputError
from dyninfer.forks import tell_after_fork
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.prepare import Scratch
from dyninfer.images.spec import ImageSpec
from dyninfer.results.answers import Detections
from dyninfer.routing.cost_bias import CostBias
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Chosen, LeaveAt, Threshold
from dyninfer.runtime.batches import Prepared
from dyninfer.types import AnyArray

AHEAD, AHEAD_LIVE = 2, 1
"""Frames that are ready or under way beside the one that was asked for, where engines run one frame
after the other. Of a live source a single one, so that it is not older than the run before took."""

_WAKE_S = 0.5
"""Whoever waits for a frame wakes this often: a Ctrl-C that another thread got, or that came just
as this one was going to sleep, would otherwise be acted on only when the frame comes."""

MEMORYLESS = frozenset({AlwaysEasy, AlwaysHard, Chosen, CostBias, LeaveAt, Threshold})
"""Policies that decide on an image by itself; of others, and of what derives from these, nobody
knows, and they get the frames in order."""


class Streamed(NamedTuple):
    """A frame and what was found in it; of a classifier, a :class:`dyninfer.Classification`."""

    frame: Frame
    detections: Detections


class Work(NamedTuple):
    """What is done with frames.

    Attributes:
        inputs: of the image inputs that every frame needs, how it is prepared, and of what type.
        answer: runs the engines on (frame, milliseconds of decoding, what was prepared), in any
            thread; its last argument is whether other frames run beside this one.
        alike: whether frames may run side by side at this moment, since none has to do with
            another.
        at_once: how many then run; 1 where that gains nothing.
        wanted: asked for every frame in its turn, whether the engines run.
        ahead: gives what a thread sends prepared images to the engines' device with, before the
            engines are free; None where they are on the host.
        finish: makes of every frame in its turn, and of its answer if there is one, its result.
    """

    inputs: Mapping[str, tuple[ImageSpec, np.dtype[Any]]]
    answer: Callable[[Frame, float | None, Prepared, bool], Detections]
    alike: Callable[[], bool]
    at_once: Callable[[], int]
    wanted: Callable[[], bool]
    ahead: Callable[[], AbstractContextManager[SendsAhead] | None]
    finish: Callable[[Frame, Detections | None], Detections]


class _Images:
    """Where one thread prepares its frames; what it opens for that is closed with ``stack``."""

    def __init__(self, work: Work, stack: ExitStack, *, ahead: bool) -> None:
        self._work, self._stack, self._may_send = work, stack, ahead
        self._tensors: Mapping[str, AnyArray] | None = None
        self._ahead: SendsAhead | None = None
        self._scratch = {name: Scratch() for name in work.inputs}

    def prepare(self, frame: Frame) -> Prepared:
        """What the engines read of a frame, on its way to them if they are on a device."""
        if self._tensors is None:
            self._tensors = self._open()
        start, tensors = time.perf_counter_ns(), self._tensors
        if self._ahead is not None:
            tensors = self._ahead.arrays()
        for name, (spec, _) in self._work.inputs.items():
            spec.prepare(frame.image, tensors[name][0], self._scratch[name])
        sent = tensors if self._ahead is None else self._ahead.send()
        return Prepared(sent, (time.perf_counter_ns() - start) / 1e6)

    def _open(self) -> Mapping[str, AnyArray]:
        ahead = self._work.ahead() if self._may_send else None
        if ahead is not None:
            self._ahead = self._stack.enter_context(ahead)
            return self._ahead.arrays()
        return {
            name: np.empty((1, 3, spec.height, spec.width), dtype)
            for name, (spec, dtype) in self._work.inputs.items()
        }


@dataclass(eq=False)
class _Turn:
    """A frame on its way; ``over`` once its result, or what went wrong, is there."""

    frame: Frame | None = None
    wanted: bool = True
    decode_ms: float | None = None
    before: _Turn | None = None
    found: Detections | None = None
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


class _Crew:
    """Threads that take frames from a source by turns, and each prepare and run what they took.

    A frame stays in its thread, so that nothing is handed over but what was found in it. Those
    whose policy looks at the frames before wait for these with their engines, but not with their
    preparing.
    """

    def __init__(self, source: FrameSource, work: Work) -> None:
        self._source, self._work = source, work
        self._at_once = 1 if source.live else work.at_once()
        if self._at_once > 1:
            source.leave_cores()
        ahead = AHEAD_LIVE if source.live else max(AHEAD, self._at_once)
        self._ahead = threading.Semaphore(1 + ahead)
        self._taking = threading.Lock()
        self._order: SimpleQueue[_Turn] = SimpleQueue()
        self._last: _Turn | None = None
        self._stopped = self._forked = False
        tell_after_fork(self)
        count = max(self._at_once, 1 + ahead)
        self._threads = [
            threading.Thread(target=self._run, name="dyninfer frames", daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def after_fork(self) -> None:
        """In a child process, which has no such threads."""
        self._forked = True

    def _run(self) -> None:
        with ExitStack() as stack:
            self._run_all(_Images(self._work, stack, ahead=self._source.leaves_gpu_alone))

    def _run_all(self, images: _Images) -> None:
        while (turn := self._take()) is not None:
            try:
                if turn.wanted:
                    self._answer(turn, images)
            except BaseException as error:  # whoever asks for this frame gets it
                turn.error = error
            finally:
                turn.before = None
                turn.over.set()
            del turn  # or its picture would live until the next one is there

    def _take(self) -> _Turn | None:
        """The next frame and its place in the order; None where there is none for this thread."""
        self._ahead.acquire()
        with self._taking:
            if self._stopped:
                return None
            turn = _Turn(before=self._last)
            start = time.perf_counter_ns()
            try:
                turn.frame = next(self._source, None)
            except BaseException as error:  # it comes after the frames before it
                turn.error = error
            if turn.frame is None:
                self._stop()
                turn.over.set()
            else:
                turn.wanted = self._work.wanted()
                if not self._source.live:  # of which it would be the time until a frame came
                    turn.decode_ms = (time.perf_counter_ns() - start) / 1e6
            if turn.wanted:  # the others have nobody wait for them
                self._last = turn
            self._order.put(turn)
        return turn if turn.frame is not None else None

    def _answer(self, turn: _Turn, images: _Images) -> None:
        frame = turn.frame
        assert frame is not None  # _take has seen to that
        prepared = images.prepare(frame)
        beside = self._at_once > 1 and self._work.alike()
        if not beside and turn.before is not None:
            turn.before.over.wait()
            if turn.before.error is not None:  # after which nothing is wanted any more
                turn.error = turn.before.error
                return
        turn.found = self._work.answer(frame, turn.decode_ms, prepared, beside)

    def next(self) -> Streamed | None:
        """The next frame in order; None after the last."""
        if self._forked:
            raise InputError(
                f"the stream of {self._source.name} belongs to the process that was forked; start "
                "another one here"
            )
        turn = self._next_turn()
        turn.over.wait()
        self._ahead.release()
        if turn.error is not None:
            raise turn.error
        if turn.frame is None:
            return None
        return Streamed(turn.frame, self._work.finish(turn.frame, turn.found))

    def _next_turn(self) -> _Turn:
        while True:
            with suppress(Empty):
                return self._order.get(timeout=_WAKE_S)

    def _stop(self) -> None:
        self._stopped = True
        for _ in self._threads:
            self._ahead.release()

    def close(self) -> None:
        """End the threads and close the source."""
        if self._forked:
            return
        self._stop()
        if self._source.live:  # whose next frame may never come
            self._source.close()
        for thread in self._threads:
            thread.join()
        self._source.close()


def stream_frames(opened: Callable[[], FrameSource], work: Work) -> Generator[Streamed, None, None]:
    """Frames in their order, each with its answer; their source is closed at the end.

    ``opened`` gives the source; it is called when the first frame is asked for.
    """
    crew = _Crew(opened(), work)
    try:
        while (streamed := crew.next()) is not None:
            yield streamed
            del streamed  # or it would live until the next one is there
    finally:
        crew.close()
