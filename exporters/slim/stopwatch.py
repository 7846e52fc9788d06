"""How long a student takes beside its base: both exported, opened, and run in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dyninfer.evaluation.interleaved import RatioEstimate, compare, run_rounds, warm_up
from dyninfer.evaluation.runs import time_once
from dyninfer.exporters.zendet.export import ZENDET, ZenDetOptions
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.types import ImageArray

ROUNDS, FINAL_ROUNDS = 30, 100
_RUNS = 3  # of a turn, of which the quickest counts: whatever disturbs one makes it slower


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a picture, from its pixels to detections; ``ratio`` is to the base's."""

    ms: float
    base_ms: float
    ratio: RatioEstimate


@dataclass(frozen=True)
class Stopwatch:
    """Times students against ``base``, an opened bundle, on ``picture``.

    ``threads`` are those of an engine, None for all cores; files are made in ``folder`` and go.
    """

    base: Detector
    picture: ImageArray
    options: ZenDetOptions
    folder: Path
    threads: int | None

    def time(self, student: ZenDetStudent, rounds: int = ROUNDS) -> Latency:
        """Export a student and run it in turns with the base.

        Raises:
            DyninferError: it cannot be exported or opened.
        """
        with self._opened(student) as detector:
            return self._beside_base(detector, rounds)

    def time_base(self) -> Latency:
        """The base beside itself."""
        return self._beside_base(self.base, ROUNDS)

    def _beside_base(self, detector: Detector, rounds: int) -> Latency:
        runs = {"student": detector, "base": self.base}
        contestants = {name: partial(_turn, run, self.picture) for name, run in runs.items()}
        for run in contestants.values():
            warm_up(run)
        found = run_rounds(contestants, rounds)
        ms, base_ms = (statistics.median(found[name]) for name in contestants)
        return Latency(ms, base_ms, compare(found["student"], found["base"]))

    @contextmanager
    def _opened(self, student: ZenDetStudent) -> Iterator[Detector]:
        with TemporaryDirectory(dir=self.folder) as folder:
            bundle = export_student(student, Path(folder), self.options)
            with load(bundle, threads=self.threads) as detector:
                yield detector


def export_student(student: ZenDetStudent, folder: Path, options: ZenDetOptions) -> Path:
    """The bundle that ``dyninfer export zendet`` makes of a student, in a folder."""
    checkpoint, bundle = folder / "student.pt", folder / "student.dyn"
    student.save(checkpoint)
    own = replace(options, structure=checkpoint.with_suffix(".txt"))
    ZENDET.export(checkpoint, bundle, own, lambda _: None)
    return bundle


def _turn(detector: Detector, picture: ImageArray) -> float:
    return min(time_once(detector, picture)[0] for _ in range(_RUNS))
