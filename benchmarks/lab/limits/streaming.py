"""``detector.stream`` on a clip, against the loop that everyone writes around ``VideoCapture``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import keep_freed_memory, repeated, warm_rounds
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.demo import EMBEDDED_CHECKPOINT
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import MIN_PAIRS, compare
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.images.sources import open_source
from dyninfer.results.answers import Detections
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.spans import DECODE, POSTPROCESS, PREPARE
from dyninfer.types import ImageArray

LIMIT = 1 / 1.2
SIZES = (64, 96)
_FRAMES = 120  # of a turn, so that other work on the machine falls on neighbouring turns alike
_EVERYDAY_FRAMES, _EVERYDAY_ROUNDS = 60, 3
_CLIPS = ("car-detection.mp4", "bottle-detection.mp4")


def measure(rounds: int) -> list[LimitResult]:
    """Time both on two clips, with the embedded model and with the everyday one.

    Of the sizes that the embedded model can be exported at, the one is taken whose engines take
    about as long as decoding and preparing. The everyday one, whose engines take far longer, has a
    third of the rounds.

    Raises:
        InputError: a clip is not there, the two find different things, or there are too few
            rounds.
    """
    keep_freed_memory()
    videos = Path(os.environ.get("DYNINFER_SHARED", "../shared")) / "data/videos"
    clips = [videos / name for name in _CLIPS]
    for clip in clips:
        if not clip.is_file():
            raise InputError(
                f"{clip} does not exist; point DYNINFER_SHARED at the folder that has it"
            )
    with scratch_folder() as folder:
        size, engines_ms, before_ms = _balanced_size(folder, clips[0])
        shares = f"engines took {engines_ms:.2f} ms a frame, decoding and preparing {before_ms:.2f}"
        model = f"the embedded model at {size}x{size}, whose {shares}"
        with load(folder / f"{size}.dyn") as detector:
            found = [_compare(detector, clip, model, _FRAMES, rounds) for clip in clips]
    with load("everyday") as detector:
        few = max(rounds // _EVERYDAY_ROUNDS, MIN_PAIRS)
        found += [
            _compare(detector, clip, "the everyday model", _EVERYDAY_FRAMES, few) for clip in clips
        ]
    return found


def _compare(detector: Detector, clip: Path, model: str, frames: int, rounds: int) -> LimitResult:
    plain, streamed = _plain(detector, clip, frames), _streamed(detector, clip, frames)
    _check_same(plain, streamed)
    runs: dict[str, Callable[[], object]] = {
        "stream": lambda: _streamed(detector, clip, frames),
        "plain loop": lambda: _plain(detector, clip, frames),
        "plain loop, one thread decodes": lambda: _plain(
            detector, clip, frames, [cv2.CAP_PROP_N_THREADS, 1]
        ),
    }
    times = warm_rounds({name: repeated(run) for name, run in runs.items()}, rounds)
    better = min(list(runs)[1:], key=lambda name: float(np.median(times[name])))
    return LimitResult(
        key=f"{detector.manifest.name}, {clip.stem}",
        what="detector.stream on a clip, against VideoCapture and a call for each frame",
        limit=LIMIT,
        measured=compare(times["stream"], times[better]),
        times_ms=times,
        note=f"{len(plain)} frames a turn, with {model}; against the {better}, the better one. "
        "Both find the same.",
    )


def _balanced_size(folder: Path, clip: Path) -> tuple[int, float, float]:
    """The model's size, and milliseconds of a frame in engines and before them."""
    tried = []
    for size in SIZES:
        path = folder / f"{size}.dyn"
        export_dynamicdet(EMBEDDED_CHECKPOINT, path, DynamicDetOptions(image_size=(size, size)))
        with load(path) as detector:
            spent = [_shares(detector, image) for image in _decoded(clip)]
        engines_ms, prepare_ms = np.median(spent, axis=0).tolist()
        tried.append((size, engines_ms, prepare_ms + _decode_ms(clip)))
    return min(tried, key=lambda each: abs(np.log(each[1] / each[2])))


def _decoded(clip: Path) -> Iterator[ImageArray]:
    with open_source(clip) as frames:
        for frame in islice(frames, _FRAMES):
            yield frame.image


def _shares(detector: Detector, image: ImageArray) -> tuple[float, float]:
    """Milliseconds of the stages, and of preparing."""
    spent = detector(image).timings_ms
    around = {DECODE, PREPARE, POSTPROCESS}
    return sum(ms for name, ms in spent.items() if name not in around), spent[PREPARE]


def _decode_ms(clip: Path) -> float:
    """Of a frame, by the plain loop's way."""
    capture, spent = cv2.VideoCapture(str(clip)), []
    for _ in range(_FRAMES):
        start = time.perf_counter()
        capture.read()
        spent.append((time.perf_counter() - start) * 1e3)
    return float(np.median(spent))


def _plain(
    detector: Detector, clip: Path, frames: int, settings: Sequence[int] = ()
) -> list[Detections]:
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, settings)
    found: list[Detections] = []
    while len(found) < frames:
        more, image = capture.read()
        if not more:
            break
        found.append(detector(image))
    return found


def _streamed(detector: Detector, clip: Path, frames: int) -> list[Detections]:
    with closing(detector.stream(clip)) as stream:
        return [found for _, found in islice(stream, frames)]


def _check_same(plain: Sequence[Detections], streamed: Sequence[Detections]) -> None:
    if len(plain) != len(streamed) or not all(
        np.array_equal(one.boxes_xyxy, other.boxes_xyxy) and one.exit_index == other.exit_index
        for one, other in zip(plain, streamed, strict=True)
    ):
        raise InputError("the loop and the stream find different things in the clip")
