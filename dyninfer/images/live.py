"""Live sources: the newest frame of a camera or a connection, which is made again when it is lost.

A thread reads whatever comes, so that nothing piles up on the way; who asks for a frame gets the
newest, made into a picture only then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from dyninfer.errors import InputError
from dyninfer.images.decoding import ConnectionLost, Decoded
from dyninfer.images.frames import Frame, FrameSource, Times
from dyninfer.images.sound import Sound
from dyninfer.types import ImageArray

logger = logging.getLogger("dyninfer")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a connection is made again; each pause is twice the one before."""
_POLL_S = 0.5  # so that signals are noticed where a lock's wait does not end for them


class Connection(Protocol):
    """What frames come from, until it is lost."""

    damaged: int

    def frames(self) -> Iterator[Decoded]:
        """As :meth:`dyninfer.images.decoding.Decoder.frames`."""

    def image(self, decoded: Decoded) -> ImageArray:
        """(h, w, 3) uint8 BGR."""

    def after_fork(self) -> None:
        """In a child process."""

    def close(self) -> None:
        """End it."""


class _Newest(NamedTuple):
    connection: Connection
    decoded: Decoded
    number: int
    time_s: float


class LiveFrames(FrameSource):
    """The newest frame of a live source whenever one is asked for, each once.

    Args:
        name: of the source, for messages.
        first: the connection, which is there already.
        connect: makes it again.
        give_up_s: for how long that is tried before frames end with an error; may be infinite.
        sound: of the connections, which is told where their times are.
    """

    live = True
    leaves_gpu_alone = True

    def __init__(
        self,
        name: str,
        first: Connection,
        connect: Callable[[], Connection],
        give_up_s: float,
        sound: Sound | None = None,
    ) -> None:
        super().__init__(name)
        self._connect, self._give_up_s = connect, give_up_s
        self._connection, self._sound = first, sound
        self._damaged_before = 0
        self._change = threading.Condition()
        self._newest: _Newest | None = None
        self._error: BaseException | None = None
        self._over = False
        self._stop = threading.Event()
        self._opened, self._times = time.monotonic(), Times(None)
        self._heard, self._pause_s = self._opened, FIRST_PAUSE_S
        self._come, self._last = 0, -1
        self._thread = threading.Thread(target=self._run, name=f"dyninfer {name}", daemon=True)
        self._thread.start()

    @property
    def damaged(self) -> int:
        """See the class."""
        return self._damaged_before + self._connection.damaged

    def __next__(self) -> Frame:
        self.check_process()
        with self._change:
            while self._newest is None and not self._over:
                self._change.wait(_POLL_S)
            newest, self._newest = self._newest, None
            if self._stop.is_set():
                raise StopIteration
            if newest is None:
                raise self._error or StopIteration
            dropped = newest.number - self._last - 1
            self._last = newest.number
            self.dropped += dropped
        image = newest.connection.image(newest.decoded)
        return Frame(image, newest.number, newest.time_s, self.name, dropped)

    def _run(self) -> None:
        try:
            self._read_all()
        except BaseException as error:  # whoever asks for the next frame gets it
            self._error = error
        finally:
            self._connection.close()
            with self._change:
                self._over = True
                self._change.notify_all()

    def _read_all(self) -> None:
        while not self._stop.is_set():
            reason = "it ended"
            try:
                self._read_connection()
            except ConnectionLost as lost:
                reason = str(lost)
            if not self._stop.is_set():
                self._connect_again(reason)

    def _read_connection(self) -> None:
        offset: float | None = None
        for decoded in self._connection.frames():
            if self._stop.is_set():
                return
            self._heard, self._pause_s = time.monotonic(), FIRST_PAUSE_S
            now = self._heard - self._opened
            if offset is None:
                offset = now - decoded.time_s
                if self._sound is not None:
                    self._sound.place(offset)
            with self._change:
                time_s = self._times.next(decoded.time_s + offset)
                self._newest = _Newest(self._connection, decoded, self._come, time_s)
                self._come += 1
                self._change.notify_all()

    def _connect_again(self, reason: str) -> None:
        """Close the connection and make it again, with growing pauses; for as long as is allowed.

        Raises:
            InputError: no frame came for that long.
        """
        self._damaged_before += self._connection.damaged
        self._connection.damaged = 0
        self._connection.close()
        logger.warning("%s: the connection is lost (%s); connecting again", self.name, reason)
        while not self._stop.wait(self._pause_s):
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)  # until a frame comes
            if time.monotonic() - self._heard > self._give_up_s:
                raise InputError(
                    f"{self.name} gave no frame for {self._give_up_s:g} s, and connecting again "
                    f"did not help: {reason}"
                )
            try:
                self._connection = self._connect()
            except InputError as error:
                reason = str(error)
            else:
                self.reconnects += 1
                return

    def after_fork(self) -> None:
        """See the base class."""
        super().after_fork()
        self._change = threading.Condition()  # the thread may have held it
        self._connection.after_fork()

    def close(self) -> None:
        """End the thread: at once where frames come, else when the connection's time is over."""
        self._stop.set()
        if self._forked:
            return
        with self._change:
            self._over, self._newest = True, None
            self._change.notify_all()
        self._thread.join(_POLL_S)


class Camera:
    """A camera of this machine by its number, through OpenCV, which knows each system's way.

    Raises:
        InputError: there is none of that number, or it is in use.
    """

    def __init__(self, number: int, max_pixels: int) -> None:
        self.damaged, self._max_pixels = 0, max_pixels
        self._number = number
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"camera:{number} cannot be opened; check its number, that no other program uses "
                "it, and that you may"
            )

    def frames(self) -> Iterator[Decoded]:
        """See :class:`Connection`; times count from the first frame."""
        start = time.monotonic()
        while True:
            found, image = self._capture.read()
            if not found:
                raise ConnectionLost("it gives no more frames")
            if image.shape[0] * image.shape[1] > self._max_pixels:
                raise InputError(
                    f"camera:{self._number} has frames of {image.shape[1]} x {image.shape[0]} "
                    f"pixels, expected at most {self._max_pixels} in all"
                )
            yield Decoded(image, time.monotonic() - start)

    def image(self, decoded: Decoded) -> ImageArray:
        """See :class:`Connection`."""
        image: Any = decoded.frame
        return np.asarray(image, np.uint8)

    def after_fork(self) -> None:
        """OpenCV keeps no threads of the camera's."""

    def close(self) -> None:
        """See :class:`Connection`."""
        self._capture.release()
