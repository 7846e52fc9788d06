"""What the runtime itself takes: calls of a cascade whose stages do nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dyninfer
from dyninfer.benchmarks.lab.limits.bare_route import BareRoute
from dyninfer.benchmarks.lab.limits.idle_bundle import SIZE, write_idle_bundle
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import repeated
from dyninfer.evaluation.interleaved import Run, bootstrap_median, run_rounds
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector

LIMIT_US = 100.0
CALLS = 200
"""Calls of each contender in a round; their median counts, so that a pause does not."""
_WARM_UP = 50
_US_PER_MS = 1e3


@dataclass(frozen=True)
class _Case:
    """Images in a call, and where they leave."""

    key: str
    batch: int
    exit_index: int

    @property
    def what(self) -> str:
        exit_ = ("first", "last")[self.exit_index]
        images = "an image" if self.batch == 1 else f"each of {self.batch} images in a call"
        return f"{images} leaving at the {exit_} exit, from decoded picture to detections"


CASES = (
    _Case("overhead-easy", 1, 0),
    _Case("overhead-hard", 1, 1),
    _Case("overhead-easy-batch-8", 8, 0),
)


def measure(rounds: int) -> list[LimitResult]:
    """Time calls of a do-nothing cascade, and its sessions run by hand, in turns.

    The overhead is the difference: preparing a picture of 32 x 32, the runtime between sessions,
    postprocessing one box. Both are medians over :data:`CALLS` calls.
    """
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="dyninfer-idle-") as folder:
        bundle = write_idle_bundle(Path(folder) / "idle.dyn")
        bare = BareRoute(bundle)
        with dyninfer.load(bundle) as detector:
            for case in CASES:
                runs[case.key] = _detector_run(detector, case)
                runs[_floor(case)] = _sessions_run(bare, case)
            times = run_rounds(runs, rounds)
    return [_result(case, times) for case in CASES]


def _floor(case: _Case) -> str:
    return f"{case.key}, sessions alone"


def _detector_run(detector: Detector, case: _Case) -> Run:
    picture, policy = np.zeros((SIZE, SIZE, 3), np.uint8), LeaveAt(case.exit_index)
    given: Any = picture if case.batch == 1 else [picture] * case.batch
    return lambda: _median_ms(lambda: detector(given, policy=policy)) / case.batch


def _sessions_run(bare: BareRoute, case: _Case) -> Run:
    images = np.zeros((case.batch, 3, SIZE, SIZE), np.float32)
    bound = bare.bind({"images": images}, [case.exit_index] * case.batch)
    return lambda: _median_ms(bound.run) / case.batch


def _median_ms(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    once = repeated(call)
    return float(np.median([once() for _ in range(CALLS)]))


def _result(case: _Case, times: Mapping[str, Sequence[float]]) -> LimitResult:
    total, floor = np.array(times[case.key]), np.array(times[_floor(case)])
    microseconds = _US_PER_MS * (total - floor)
    return LimitResult(
        key=case.key,
        what=f"{case.what}, without the sessions' own runs",
        unit="microseconds",
        limit=LIMIT_US,
        measured=bootstrap_median(microseconds),
        times_ms={name: times[name] for name in (case.key, _floor(case))},
        note=(
            f"{_US_PER_MS * float(np.median(total)):.0f} microseconds in all, of which the "
            f"sessions take {_US_PER_MS * float(np.median(floor)):.0f}; per image"
        ),
    )
