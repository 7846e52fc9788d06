"""The next frames are decoded and prepared in a thread while the engines run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from dyninfer.errors import InputError
from dyninfer.forks import tell_after_fork
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.prepare import Scratch
from dyninfer.images.spec import ImageSpec
from dyninfer.results.answers import Detections
from dyninfer.runtime.batches import Prepared
from dyninfer.types import Float32Array

_AHEAD, _AHEAD_LIVE = 2, 1
"""Frames that are ready or being made while another one runs. Of a live source a single one, so
that it is not older than the run before it took."""


class Streamed(NamedTuple):
    """A frame and what was found in it; of a classifier, a :class:`dyninfer.Classification`."""

    frame: Frame
    detections: Detections


@dataclass
class _Slot:
    """Memory for one prepared frame, used again and again."""

    tensors: dict[str, Float32Array]
    scratch: dict[str, Scratch]
    frame: Frame | None = None
    wanted: bool = True
    decode_ms: float | None = None
    prepare_ms: float = 0.0


class _Reader:
    """Takes frames from a source and prepares them, in a thread, as far ahead as slots are free."""

    def __init__(
        self, source: FrameSource, specs: Mapping[str, ImageSpec], wanted: Callable[[], bool]
    ) -> None:
        self._source, self._specs, self._wanted = source, specs, wanted
        self._free: SimpleQueue[_Slot | None] = SimpleQueue()
        self._ready: SimpleQueue[_Slot | BaseException | None] = SimpleQueue()
        self._stopped = self._forked = False
        for _ in range(1 + (_AHEAD_LIVE if source.live else _AHEAD)):
            shapes = {name: (1, 3, spec.height, spec.width) for name, spec in specs.items()}
            tensors = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
            self._free.put(_Slot(tensors, {name: Scratch() for name in specs}))
        tell_after_fork(self)
        self._thread = threading.Thread(target=self._run, name="dyninfer frames", daemon=True)
        self._thread.start()

    def after_fork(self) -> None:
        """In a child process, which has no such thread."""
        self._forked = True

    def _run(self) -> None:
        try:
            while (slot := self._free.get()) is not None and not self._stopped:
                if not self._fill(slot):
                    break
                self._ready.put(slot)
            self._ready.put(None)
        except BaseException as error:  # whoever asks for the next frame gets it
            self._ready.put(error)

    def _fill(self, slot: _Slot) -> bool:
        """Decode and prepare the next frame; False where there is none."""
        start = time.perf_counter_ns()
        frame = next(self._source, None)
        if frame is None:
            return False
        decoded = time.perf_counter_ns()
        slot.frame, slot.wanted = frame, self._wanted()
        for name, spec in self._specs.items() if slot.wanted else ():
            spec.prepare(frame.image, slot.tensors[name][0], slot.scratch[name])
        # of a live source it would be the time until a frame came
        slot.decode_ms = None if self._source.live else (decoded - start) / 1e6
        slot.prepare_ms = (time.perf_counter_ns() - decoded) / 1e6
        return True

    def next(self) -> _Slot | None:
        """The next frame in order, which goes back to :meth:`free`; None after the last."""
        if self._forked:
            raise InputError(
                f"the stream of {self._source.name} belongs to the process that was forked; start "
                "another one here"
            )
        slot = self._ready.get()
        if isinstance(slot, BaseException):
            raise slot
        return slot

    def free(self, slot: _Slot) -> None:
        """Let a slot be filled anew."""
        slot.frame = None
        self._free.put(slot)

    def close(self) -> None:
        """End the thread and close the source."""
        if self._forked:
            return
        self._stopped = True
        self._free.put(None)
        if self._source.live:  # whose next frame may never come
            self._source.close()
        self._thread.join()
        self._source.close()


def stream_frames(
    opened: Callable[[], FrameSource],
    specs: Mapping[str, ImageSpec],
    answer: Callable[[Frame, float | None, Prepared], Detections],
    wanted: Callable[[], bool],
    finish: Callable[[Frame, Detections | None], Detections],
) -> Generator[Streamed, None, None]:
    """Frames in their order, each with its answer; their source is closed at the end.

    Args:
        opened: gives the source; called when the first frame is asked for.
        specs: of the image inputs that every frame needs, which are prepared ahead.
        answer: runs the engines: (frame, milliseconds of decoding, what was prepared).
        wanted: asked for every frame in its turn, whether the engines run.
        finish: makes of every frame in its turn, and of its answer if there is one, its result.
    """
    reader = _Reader(opened(), specs, wanted)
    try:
        while (slot := reader.next()) is not None:
            frame = slot.frame
            assert frame is not None  # that of a slot which is ready
            found = None
            if slot.wanted:
                found = answer(frame, slot.decode_ms, Prepared(slot.tensors, slot.prepare_ms))
            reader.free(slot)
            yield Streamed(frame, finish(frame, found))
            del frame, found  # or they would live until the next ones are there
    finally:
        reader.close()
