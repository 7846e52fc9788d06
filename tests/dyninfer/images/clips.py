"""Clips that tests make, each frame of a grey that tells its number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av: Any = pytest.importorskip("av", reason="PyAV is not installed; make installs it")

STEP = 8


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Grey by its number, with a bright corner at the upper left."""
    image = np.full((height, width, 3), 16 + number % 24 * STEP, np.uint8)
    image[: height // 4, : width // 4] = 255
    return image


def number_of(image: np.ndarray) -> int:
    """The number of a picture, modulo 24."""
    return round((float(np.median(image)) - 16) / STEP)


def write_clip(
    path: Path,
    count: int = 12,
    *,
    size: tuple[int, int] = (48, 64),
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    seconds_of_sound: float = 0.0,
    rate: int = 10,
) -> Path:
    """``size`` is (height, width); ``times`` are those of the frames, in seconds."""
    times = [number / rate for number in range(count)] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size, stream.bit_rate = 4, 20_000_000
        sound = container.add_stream("aac", rate=16000) if seconds_of_sound else None
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="bgr24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _write_sound(container, sound, seconds_of_sound)
    return path


def _write_sound(container: Any, stream: Any, seconds: float) -> None:
    samples = np.sin(np.arange(int(seconds * 16000)) / 10).astype(np.float32)[None] / 2
    for start in range(0, samples.shape[1] - 1024, 1024):
        block = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def damage(path: Path, numbers: Iterable[int]) -> Path:
    """Overwrite the packets of those numbers with noise, where they lie in the file."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for number in numbers:
        start, size = packets[number]
        data[start + 4 : start + size] = random.integers(0, 256, size - 4, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def turn(path: Path, degrees: int) -> Path:
    """Say in an MP4 file that it is to be shown turned clockwise, as telephones do."""
    matrices = {
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0),
    }
    a, b, c, d = (number * 65536 for number in matrices[degrees])
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
    data[matrix : matrix + 36] = values.tobytes()
    path.write_bytes(data)
    return path
