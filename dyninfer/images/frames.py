"""Frames, one after the other: of pictures, and what all sources of them have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from dyninfer.errors import InputError
from dyninfer.forks import tell_after_fork
from dyninfer.images.pictures import read_image
from dyninfer.types import ImageArray

logger = logging.getLogger("dyninfer")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: (h, w, 3) uint8 BGR, upright.
        index: how many frames of the source came before, those that were left out among them.
        time_s: seconds from the beginning of a video, or since a live source was opened; never less
            than the frame before has. None for pictures.
        source: the file or the address; without a password, if there was one.
        dropped: how many frames of a live source were left out since the one before.
    """

    image: ImageArray
    index: int
    time_s: float | None
    source: str
    dropped: int = 0


class FrameSource(Iterator[Frame]):
    """Gives frames until there are no more; use it as a context manager, or :meth:`close` it.

    One thread at a time may ask for frames; a forked child may not.

    Attributes:
        name: of the source, for messages.
        live: whether frames come when they happen, so that who is slow misses some.
        expected: how many frames there are, as far as the file says; None if it does not.
        rate: frames a second on average, in the same way.
        damaged: packets and frames that could not be decoded so far, and were skipped.
        dropped: frames of a live source that were left out so far, because newer ones had come.
        reconnects: how often a lost connection was made again.
        leaves_gpu_alone: whether asking for a frame never uses CUDA, so that the thread that does
            so may have a detector's GPU as its current one.
    """

    live = False
    leaves_gpu_alone = False

    def __init__(
        self, name: str, expected: int | None = None, rate: Fraction | None = None
    ) -> None:
        self.name = name
        self.expected = expected
        self.rate = rate
        self.dropped = 0
        self.reconnects = 0
        self._forked = False
        tell_after_fork(self)

    @property
    def damaged(self) -> int:
        """See the class."""
        return 0

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame.

        Raises:
            InputError: it cannot be read, or the connection is lost for good.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the source holds; who waits for a frame of a live source gets no more."""

    def leave_cores(self) -> None:  # not every source has threads
        """Before the first frame: decode with few threads, since engines run beside it."""

    def after_fork(self) -> None:
        """In a child process: leave alone what the parent's threads serve."""
        self._forked = True

    def check_process(self) -> None:
        """Refuse frames in a child process.

        Raises:
            InputError: the process was forked after the source was opened.
        """
        if self._forked:
            raise InputError(
                f"{self.name} was opened before this process was forked; open it again here"
            )

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PictureFrames(FrameSource):
    """Pictures' files as frames, in their order; with ``skip``, those that can be read."""

    leaves_gpu_alone = True

    def __init__(self, paths: Sequence[Path], name: str, max_pixels: int, *, skip: bool) -> None:
        super().__init__(name, len(paths))
        self._paths = enumerate(paths)
        self._max_pixels = max_pixels
        self._skip = skip

    def __next__(self) -> Frame:
        for index, path in self._paths:
            try:
                return Frame(read_image(path, self._max_pixels), index, None, str(path))
            except InputError as error:
                if not self._skip:
                    raise
                logger.warning("%s; skipped", error)
        raise StopIteration

    def close(self) -> None:
        """Nothing is open between two pictures."""
        self._paths = enumerate(())


class Times:
    """Makes seconds of what a file says: never less than before, and known where it says nothing.

    ``rate`` is in frames a second, as far as it is known.
    """

    def __init__(self, rate: Fraction | None) -> None:
        self._step = 1 / float(rate) if rate else 0.04
        self._last: float | None = None

    def next(self, seconds: float | None) -> float:
        """Of the next frame, for which the file gives ``seconds``, or None."""
        if seconds is None:
            seconds = 0.0 if self._last is None else self._last + self._step
        if self._last is not None:
            seconds = max(seconds, self._last)
        self._last = seconds
        return seconds
