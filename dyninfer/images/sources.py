"""Opens whatever frames come from: pictures, video files, cameras, and streams of the network."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dyninfer.errors import InputError
from dyninfer.files import check_regular
from dyninfer.images.decoding import FORMATS, ConnectionLost, Decoded, Decoder
from dyninfer.images.frames import Frame, FrameSource, PictureFrames, logger
from dyninfer.images.live import Camera, LiveFrames
from dyninfer.images.named import Kind, kind_of, named_pictures
from dyninfer.images.pictures import MAX_PIXELS, check_max_pixels
from dyninfer.images.sound import Sound
from dyninfer.types import as_float, shown

TRANSPORTS = ("tcp", "udp", "udp_multicast", "http", "https")
"""How RTSP servers send; over TCP nothing is lost on the way."""


def open_source(
    source: str | os.PathLike[str] | int,
    *,
    max_pixels: int = MAX_PIXELS,
    on_error: str = "raise",
    transport: str = "tcp",
    timeout_s: float = 10.0,
    give_up_s: float = 60.0,
) -> FrameSource:
    """Open a source of frames.

    Args:
        source: a picture, a folder of pictures, a pattern, a list of them in a ``.txt`` file, a
            video file, ``camera:0`` (or the number alone as an int), or an address that begins with
            rtsp, rtsps, rtmp, http, https, udp or rtp.
        max_pixels: of a frame; larger ones are refused.
        on_error: what becomes of a picture that cannot be read: ``"raise"``, or ``"skip"``, which
            logs a warning. Damaged frames of videos are always skipped and counted.
        transport: of RTSP: tcp, udp, udp_multicast, http or https.
        timeout_s: for how long is waited for a connection, and for everything that comes over it.
        give_up_s: for how long a live source may give nothing, while the connection is made again
            with growing pauses, before that is an error; ``math.inf`` for never.

    Raises:
        InputError: it cannot be opened, or an argument is wrong.
        MissingExtra: it is a video or a stream, and PyAV is not installed.
    """
    return open_with_sound(
        source,
        None,
        max_pixels=max_pixels,
        on_error=on_error,
        transport=transport,
        timeout_s=timeout_s,
        give_up_s=give_up_s,
    )


def open_with_sound(
    source: str | os.PathLike[str] | int,
    sound: Sound | None,
    *,
    max_pixels: int,
    on_error: str,
    transport: str,
    timeout_s: float,
    give_up_s: float,
) -> FrameSource:
    """As :func:`open_source`; ``sound`` is given the source's, if there is any."""
    _check(on_error, transport, timeout_s, give_up_s)
    name = f"camera:{source}" if isinstance(source, int) else os.fsdecode(source)
    kind = kind_of(name)
    check_max_pixels(max_pixels)
    if kind is Kind.PICTURES:
        paths = named_pictures([name], logger.warning)
        return PictureFrames(paths, name, max_pixels, skip=on_error == "skip")
    if kind is Kind.VIDEO:
        return VideoFrames(_open_file(name, max_pixels, sound), name)
    if kind is Kind.CAMERA:
        number = int(name.partition(":")[2])
        first = Camera(number, max_pixels)
        return LiveFrames(name, first, lambda: Camera(number, max_pixels), give_up_s)
    shown_name = without_password(name)
    options = _options(name, transport)

    def connect() -> Decoder:
        return Decoder(name, shown_name, max_pixels, options, timeout_s, sound)

    connection = connect()
    if connection.endless:
        return LiveFrames(shown_name, connection, connect, give_up_s, sound)
    return VideoFrames(connection, shown_name)


def without_password(address: str) -> str:
    """An address for messages and results: who may see these may not see the password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*(?=@)", r"\1:***", address)


def _check(on_error: str, transport: str, timeout_s: float, give_up_s: float) -> None:
    if on_error not in ("raise", "skip"):
        raise InputError(f"on_error is {shown(on_error)}, expected 'raise' or 'skip'")
    if transport not in TRANSPORTS:
        raise InputError(f"transport is {shown(transport)}, expected {', '.join(TRANSPORTS)}")
    if not 0 < as_float(timeout_s) <= 3600:
        raise InputError(f"timeout_s is {shown(timeout_s)}, expected seconds from above 0 to 3600")
    if math.isnan(as_float(give_up_s)) or give_up_s < 0:
        raise InputError(
            f"give_up_s is {shown(give_up_s)}, expected seconds from 0 up, or math.inf"
        )


def _options(address: str, transport: str) -> dict[str, str]:
    """FFmpeg's, for a connection."""
    scheme = address.partition("://")[0].lower()
    if scheme in ("rtsp", "rtsps"):
        return {"rtsp_transport": transport, "fflags": "nobuffer", "flags": "low_delay"}
    if scheme in ("http", "https"):  # of a file, the rest is asked for where it stopped
        network = "http,https,tls,tcp,crypto"
        again = {"reconnect": "1", "reconnect_on_network_error": "1", "reconnect_delay_max": "4"}
        return {"protocol_whitelist": network, "format_whitelist": f"{FORMATS},hls,mpjpeg"} | again
    return {}


def _open_file(name: str, max_pixels: int, sound: Sound | None) -> Decoder:
    try:
        if not check_regular(Path(name)):
            raise InputError(f"{name} is empty (0 bytes), expected a video")
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name[:200]!r} cannot be read: {reason}") from None
    address = f"file:{name}"  # whatever its name looks like
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    return Decoder(address, name, max_pixels, options, sound=sound)


class VideoFrames(FrameSource):
    """Every frame of a video with an end, a file or one that a server has."""

    leaves_gpu_alone = True

    def __init__(self, decoder: Decoder, name: str) -> None:
        super().__init__(name, decoder.expected, decoder.rate)
        self._decoder = decoder
        self._decoded: Iterator[Decoded] = decoder.frames()
        self._index = 0

    @property
    def damaged(self) -> int:
        """See the base class."""
        return self._decoder.damaged

    def __next__(self) -> Frame:
        self.check_process()
        try:
            decoded = next(self._decoded)
        except ConnectionLost as lost:
            raise InputError(
                f"{self.name}: the connection was lost after {self._index} frames: {lost}"
            ) from None
        image = self._decoder.image(decoded)
        self._index += 1
        return Frame(image, self._index - 1, decoded.time_s, self.name)

    def leave_cores(self) -> None:
        """See the base class."""
        self._decoder.leave_cores()

    def after_fork(self) -> None:
        """See the base class."""
        super().after_fork()
        self._decoder.after_fork()

    def close(self) -> None:
        """See the base class."""
        if not self._forked:
            self._decoded = iter(())
            self._decoder.close()
