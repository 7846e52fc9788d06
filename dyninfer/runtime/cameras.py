"""The sources of many streams, each opened and read in a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable

from dyninfer.errors import InputError
from dyninfer.images.frames import Frame, FrameSource

_LEAVE_S = 0.5  # that closing waits for a thread which may be opening a connection
PATIENCE_S = 0.5
"""How long all wait for the next frame of a source that is not live, before it counts as stalled
and nobody waits for it until it gives one."""


class Camera:
    """One source: its thread keeps the next frame ready.

    Attributes:
        name: of the stream.
        frame: the next one, once it is there.
        live: whether frames come when they happen; None before the source is open.
        ended: whether there are no more.
        error: what it ended with, if that was a failure.
        stalled: whether nobody waits for its next frame.
    """

    def __init__(
        self, name: str, opened: Callable[[], FrameSource], change: threading.Condition
    ) -> None:
        self.name = name
        self.frame: Frame | None = None
        self.live: bool | None = None
        self.error: Exception | None = None
        self.ended = self.stalled = False
        self._opened, self._change = opened, change
        self._source: FrameSource | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"dyninfer {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # reported as the end of this stream alone
            self.error = error
        finally:
            if self._source is not None:
                self._source.close()
            with self._change:
                self.ended = True
                self._change.notify_all()

    def _read(self) -> None:
        source = self._source = self._opened()
        self.live = source.live
        for frame in source:
            with self._change:
                self.frame, self.stalled = frame, False
                self._change.notify_all()
                while self.frame is not None and not self._stop:
                    self._change.wait()
                if self._stop:
                    return

    def take(self) -> Frame:
        """The frame that is ready; the thread goes for the next one. The lock is held."""
        frame = self.frame
        assert frame is not None  # whoever takes it has looked
        self.frame = None
        self._change.notify_all()
        return frame

    def stop(self) -> None:
        """End the thread as soon as it can be; the lock is held."""
        self._stop = True
        self._change.notify_all()

    def close(self) -> None:
        """Wait for the thread, but for one that hangs at a dead connection, which ends later."""
        if self._source is not None and self._source.live:  # whose next frame may never come
            self._source.close()
        self._thread.join(_LEAVE_S)


class Cameras:
    """All of them, and waiting for their frames.

    Args:
        opened: what opens the source of each, by name.
    """

    def __init__(self, opened: Iterable[tuple[str, Callable[[], FrameSource]]]) -> None:
        self.change = threading.Condition()
        self.all = [Camera(name, open_it, self.change) for name, open_it in opened]
        self._pid = os.getpid()

    def ready(self) -> list[Camera]:
        """Those with a frame, once there is one and nobody who is worth it is waited for.

        A live source is never waited for, others for :data:`PATIENCE_S`. Empty where all have
        ended.
        """
        if self._pid != os.getpid():
            raise InputError(
                "these streams belong to the process that was forked; start others here"
            )
        with self.change:
            since = time.monotonic()
            while True:
                going = [camera for camera in self.all if not camera.ended or camera.frame]
                here = [camera for camera in going if camera.frame is not None]
                awaited = [
                    camera
                    for camera in going
                    if camera.frame is None and not camera.stalled and not camera.live
                ]
                if not going or (here and not awaited):
                    return here
                left = since + PATIENCE_S - time.monotonic()
                if here and left <= 0:
                    for camera in awaited:
                        camera.stalled = True
                    return here
                self.change.wait(max(left, 0.01) if here else PATIENCE_S)

    def close(self) -> None:
        """End all threads and close all sources; at once where frames come."""
        if self._pid != os.getpid():
            return
        with self.change:
            for camera in self.all:
                camera.stop()
        for camera in self.all:
            camera.close()
