"""Pictures into a video file, each at its time, with the sound of where they come from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dyninfer.errors import InputError
from dyninfer.foreign_errors import reason_of
from dyninfer.images.decoding import load_av
from dyninfer.images.sound import Sound
from dyninfer.types import ImageArray

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""By suffix, as FFmpeg calls them."""
_CLOCK = Fraction(1, 90_000)
_SOUND_AHEAD_S = 0.5
_USUAL_RATE = 25


class VideoWriter:
    """Writes H.264, or MPEG-4 where the encoder is missing; :meth:`close` makes it playable.

    Args:
        path: of the file, which is replaced.
        rate: frames a second, as the encoder is told; each frame is shown at its own time.
        sound: is copied as it comes; None for silence.
        warn: is told, in one line, where sound does not fit into the container.

    Raises:
        MissingExtra: PyAV is not installed.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction | None,
        sound: Sound | None,
        warn: Callable[[str], None],
    ) -> None:
        self._av = load_av()
        self._path, self._rate, self._warn = path, rate, warn
        self._sound = sound or Sound()
        # Ctrl-C comes to the main thread, there between what is encoded and its place in the file
        self._worker = ThreadPoolExecutor(1, "dyninfer video")
        self._file: Any = None
        self._stream: Any = None
        self._track: Any = None
        self._last = -1
        self._heard = Fraction(-(1 << 62))  # when the last packet of sound was, in seconds

    def write(self, image: ImageArray, time_s: float) -> None:
        """Add a picture (h, w, 3) uint8 BGR; one of another size than the first is fitted in.

        Raises:
            InputError: the file cannot be written.
        """
        self._worker.submit(self._write, image, time_s).result()

    def _write(self, image: ImageArray, time_s: float) -> None:
        try:
            if self._file is None:
                self._open(image.shape[0], image.shape[1])
            # no two at the same time
            self._last = max(self._last + 1, round(time_s / _CLOCK))
            size = (self._stream.width, self._stream.height)
            frame = self._av.VideoFrame.from_ndarray(_fitted(image, size), format="bgr24")
            frame.pts, frame.time_base = self._last, _CLOCK
            self._file.mux(self._stream.encode(frame))
            self._copy_sound(time_s + _SOUND_AHEAD_S)
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from None

    def close(self, *, to_the_end: bool = False) -> None:
        """Write what is left; with ``to_the_end`` also the sound after the last picture.

        Raises:
            InputError: the file cannot be written.
        """
        with self._worker:
            self._worker.submit(self._close, to_the_end).result()

    def _close(self, to_the_end: bool) -> None:
        if self._file is None:
            return
        file = self._file
        try:
            file.mux(self._stream.encode())
            if to_the_end:
                self._copy_sound(float("inf"))
            self._file = None
            file.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from None
        finally:
            self._file = None
            self._sound.stop()

    def _copy_sound(self, until_s: float) -> None:
        """All packets up to that time, but none that would go back, as after a new connection."""
        for packet in self._sound.take(until_s):
            now = packet.dts * packet.time_base
            if self._track is not None and now > self._heard:
                self._heard = now
                packet.stream = self._track
                self._file.mux(packet)

    def _open(self, height: int, width: int) -> None:
        try:
            self._begin(height, width)
        except (self._av.FFmpegError, ValueError) as error:
            if self._sound.stream is None:
                raise
            self._warn(
                f"the sound, {self._sound.codec}, is left out: {self._path.suffix} does not hold "
                f"it ({reason_of(error)}); .mkv holds nearly all"
            )
            self._sound.stop()
            self._sound = Sound()
            self._begin(height, width)

    def _begin(self, height: int, width: int) -> None:
        """Make the file and write its head, which fails where a container does not hold a codec."""
        container = CONTAINERS[self._path.suffix.lower()]
        self._file = file = self._av.open(str(self._path), "w", format=container)
        encoders = self._av.codecs_available
        codec = "libx264" if "libx264" in encoders else "mpeg4"
        fast = {"preset": "veryfast", "crf": "23"} if codec == "libx264" else {}
        stream = file.add_stream(codec, rate=self._rate or _USUAL_RATE, options=fast)
        # of colours there is one for two pixels each way
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _CLOCK
        if codec != "libx264":
            stream.bit_rate = 8_000_000
        self._stream = stream
        heard = self._sound.stream
        self._track = None if heard is None else file.add_stream_from_template(heard)
        file.start_encoding()

    def _refused(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or reason_of(error)
        return InputError(f"the video cannot be written to {self._path.parent.parent}: {reason}")


def _fitted(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """The picture within ``size`` (width, height): at its upper left if it fits but for a pixel."""
    height, width = image.shape[:2]
    if not (0 <= size[0] - width <= 1 and 0 <= size[1] - height <= 1):
        scale = min(size[0] / width, size[1] / height)
        new = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
        border, colour = cv2.BORDER_CONSTANT, (0, 0, 0)
    else:
        border, colour = cv2.BORDER_REPLICATE, (0, 0, 0)
    if (width, height) == size:
        return image
    below, right = size[1] - height, size[0] - width
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, border, value=colour)
    return np.asarray(padded, np.uint8)
