"""All that is not an engine, of an easy image, as a share of its engines."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import dyninfer
from dyninfer.benchmarks.lab.limits.preprocessing import HEIGHT, WIDTH, noise_picture
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare, warm_up
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector
from dyninfer.types import ImageArray

LIMIT = 0.03


def measure(bundle: Path, rounds: int) -> list[LimitResult]:
    """Split calls on one frame of 1280 x 720 that leaves at the first exit.

    Engines are the stages' spans of the same call; all that is left of its wall-clock time is
    preparing, reading, postprocessing and the runtime itself.

    Raises:
        InputError: there are too few rounds.
    """
    if rounds < 2:
        raise InputError(f"there are {rounds} rounds, expected at least 2")
    frame = noise_picture()
    with dyninfer.load(bundle) as detector:
        warm_up(lambda: sum(_split_ms(detector, frame)))
        splits = [_split_ms(detector, frame) for _ in range(rounds)]
        found = len(detector(frame, policy=LeaveAt(0)))
    rest, engines = zip(*splits, strict=True)
    return [
        LimitResult(
            key="end-to-end",
            what=f"a {WIDTH}x{HEIGHT} frame to detections at the first exit, without the engines, "
            "over the engines",
            limit=LIMIT,
            measured=compare(rest, engines),
            times_ms={"all but engines": rest, "engines": engines},
            note=(
                f"{float(np.median(rest)):.2f} ms beside the engines' "
                f"{float(np.median(engines)):.1f} ms; {found} detections"
            ),
        )
    ]


def _split_ms(detector: Detector, frame: ImageArray) -> tuple[float, float]:
    """Milliseconds of one call: all but engines, and engines."""
    start = time.perf_counter_ns()
    found = detector(frame, policy=LeaveAt(0))
    elapsed_ms = (time.perf_counter_ns() - start) / 1e6
    stages = detector.manifest.stages
    engines_ms = sum(ms for name, ms in found.timings_ms.items() if name in stages)
    return elapsed_ms - engines_ms, engines_ms
