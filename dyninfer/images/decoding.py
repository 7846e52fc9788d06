"""Video decoded by PyAV, which brings FFmpeg: one file, or one connection."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import cv2
import numpy as np

from dyninfer.errors import InputError, MissingExtra
from dyninfer.foreign_errors import reason_of
from dyninfer.forks import Opening, leave_alone
from dyninfer.hardware import usable_cores
from dyninfer.images.frames import Times
from dyninfer.images.sound import Sound
from dyninfer.installing import pip_install
from dyninfer.types import ImageArray

FORMATS = (
    "3gp,apng,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,nut,obu,ogg,rm,webm,wtv,yuv4mpegpipe"
)
"""Containers that hold video themselves. Others, such as playlists, name files and addresses that
FFmpeg would then read, or draw text as video."""
_PROBED_BYTES, _PROBED_US = 5_000_000, 5_000_000
_DAMAGED_IN_A_ROW = 1000  # packets of a file, after which its rest is given up
_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}


class ConnectionLost(Exception):  # noqa: N818  # it is caught where connections are made again
    """A connection ended or timed out in the middle; the message says why."""


class Decoded(NamedTuple):
    """A frame as the decoder gives it; :meth:`Decoder.image` makes a picture of it."""

    frame: Any
    time_s: float


def load_av() -> Any:
    """The module ``av``.

    Raises:
        MissingExtra: it is not installed.
    """
    with Opening():
        try:
            import av
        except ImportError:
            raise MissingExtra(
                f"reading and writing video needs PyAV; run: {pip_install('video')}"
            ) from None
    return av


class Decoder:
    """The frames of the first video stream, decoded one by one.

    Args:
        address: a path or a URL.
        name: in messages.
        max_pixels: of a frame; larger ones are refused before they are decoded.
        options: of FFmpeg's, for the container and the protocols.
        timeout_s: for opening, and for every packet; None for files.
        sound: is given the packets of the first sound track.

    Raises:
        InputError: it cannot be opened, or is no video.
        MissingExtra: PyAV is not installed.
    """

    def __init__(
        self,
        address: str,
        name: str,
        max_pixels: int,
        options: Mapping[str, str],
        timeout_s: float | None = None,
        sound: Sound | None = None,
    ) -> None:
        self._av = av = load_av()
        self.name, self._max_pixels = name, max_pixels
        self.damaged = 0
        self._connected = timeout_s is not None
        limits = {"probesize": str(_PROBED_BYTES), "analyzeduration": str(_PROBED_US)}
        start = time.monotonic()
        try:
            self._container = av.open(address, options=limits | dict(options), timeout=timeout_s)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InputError(self._why_not_opened(error, start, timeout_s)) from None
        try:
            self._stream = self._choose()
        except BaseException:
            self._container.close()
            raise
        self._sound = sound
        self._heard = self._container.streams.best("audio") if sound is not None else None
        if sound is not None:
            sound.begin(av, self._heard, None if self.endless else 0.0)
        self._shape = av.video.reformatter.VideoReformatter()

    def _why_not_opened(self, error: Exception, start: float, timeout_s: float | None) -> str:
        # of some protocols it says something else than that the time was over
        if timeout_s is not None and time.monotonic() - start >= timeout_s:
            return f"{self.name} did not answer within {timeout_s:g} s; check the address"
        reason = getattr(error, "strerror", None) or reason_of(error)
        if self._connected:
            return f"{self.name} cannot be opened: {reason}"
        return f"{self.name} is not a video that can be read: {reason}"

    def _choose(self) -> Any:
        """The video stream, with limits set before its decoder is opened."""
        stream = self._container.streams.best("video")
        if stream is None or stream.codec_context is None:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "no streams"
            raise InputError(f"{self.name} holds no video that can be decoded, but {kinds}")
        context = stream.codec_context
        self._check_size(context.width, context.height)
        context.options = {"max_pixels": str(self._max_pixels)}
        # by frames is faster, and a frame for each thread later
        context.thread_type = "SLICE" if self.endless else "AUTO"
        return stream

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise InputError(
                f"{self.name} has frames of {width} x {height} pixels, expected at most "
                f"{self._max_pixels} in all; scale it down, or allow more with max_pixels"
            )

    def leave_cores(self) -> None:
        """Decode with half the cores at most, if it has not begun: engines want the others."""
        context = self._stream.codec_context
        if not context.is_open:
            context.thread_count = max(1, usable_cores() // 2)

    @property
    def endless(self) -> bool:
        """Whether it is live: a connection whose end nobody knows."""
        return self._connected and self._container.duration is None

    @property
    def rate(self) -> Fraction | None:
        """Frames a second, on average, as far as the file says."""
        rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        return rate

    @property
    def expected(self) -> int | None:
        """How many frames there are, as far as the file says."""
        if self._stream.frames:
            return int(self._stream.frames)
        duration, rate = self._container.duration, self.rate
        if not duration or not rate:
            return None
        return max(1, round(int(duration) / 1_000_000 * float(rate)))

    def frames(self) -> Iterator[Decoded]:
        """All frames, in the order in which they are shown.

        Raises:
            InputError: a frame is too large, or there was none that could be decoded.
            ConnectionLost: nothing more came, for as long as is waited.
        """
        times, start, found = Times(self.rate), self._start_s, 0
        for packet in self._packets():
            for frame in self._decode(packet):
                self._check_size(frame.width, frame.height)
                if frame.is_corrupt:
                    self.damaged += 1
                    continue
                found += 1
                yield Decoded(frame, times.next(None if frame.time is None else frame.time - start))
        if not found and not self.endless:
            damage = f"; {self.damaged} damaged packets" if self.damaged else ""
            raise InputError(f"{self.name} holds no frame that can be decoded{damage}")

    @property
    def _start_s(self) -> float:
        """When the container's times begin."""
        return (self._container.start_time or 0) / 1e6

    def _packets(self) -> Iterator[Any]:
        """All packets of the video, and at the end one that flushes the decoder."""
        in_a_row = 0
        streams = [stream for stream in (self._stream, self._heard) if stream is not None]
        while True:
            try:
                for packet in self._container.demux(*streams):
                    in_a_row = 0
                    if packet.stream.index == self._stream.index:
                        yield packet
                    elif self._sound is not None:
                        self._sound.put(packet, self._start_s)
                return
            except self._av.error.InvalidDataError:
                self.damaged += 1
                in_a_row += 1
                if in_a_row > _DAMAGED_IN_A_ROW:
                    return
            except self._av.error.ExitError:
                raise ConnectionLost("nothing came in time") from None
            except self._av.FFmpegError as error:
                if self._connected:
                    raise ConnectionLost(error.strerror or reason_of(error)) from None
                self.damaged += 1
                return

    def _decode(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = packet.decode()
        except self._av.error.EOFError:
            return []
        except self._av.FFmpegError:  # of a damaged packet; decoders go on with the next
            self.damaged += 1
            return []
        return frames

    def image(self, decoded: Decoded) -> ImageArray:
        """A frame as (h, w, 3) uint8 BGR, turned upright as the container says."""
        image = _pixels(self._shape.reformat(decoded.frame, format="bgr24"))
        turn = _TURNS.get(round(decoded.frame.rotation / 90) * 90 % 360)
        return image if turn is None else cv2.rotate(image, turn)  # type: ignore[return-value]

    def after_fork(self) -> None:
        """In a child: the decoder's threads are the parent's."""
        leave_alone(self._container)
        leave_alone(self._stream)
        leave_alone(self._shape)

    def close(self) -> None:
        """Free the decoder and the connection; nobody may read frames meanwhile."""
        self._container.close()


def _pixels(frame: Any) -> ImageArray:
    """A frame of bgr24 as (h, w, 3), where it lies, unless its rows have gaps between them.

    FFmpeg adds to rows what makes them begin at good addresses, which most sizes do anyway.
    """
    plane, row = frame.planes[0], 3 * frame.width
    if plane.line_size != row:
        copied: ImageArray = frame.to_ndarray()
        return copied
    return np.frombuffer(plane, np.uint8, frame.height * row).reshape(frame.height, -1, 3)


# What of FFmpeg's is garbage by then would wait, when a child collects it, for threads that are its
# parent's alone; nobody knows where PyAV keeps which of them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)
