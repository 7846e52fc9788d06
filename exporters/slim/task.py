"""What a search for a student starts from: the base, the target, labelled pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample
from dyninfer.exporters.slim.pictures import Pictures
from dyninfer.exporters.slim.stopwatch import Latency, Stopwatch
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.images.spec import ImageSpec
from dyninfer.plain_text import counted
from dyninfer.search.structure import read_structure

HELD_BACK, MOST_HELD_BACK = 5, 300
"""One picture in so many judges students, but no more than the second."""
_FEWEST = 10


@dataclass(frozen=True)
class Target:
    """How long a student may take: a share of the base's time, or milliseconds."""

    ratio: float | None = None
    ms: float | None = None

    def excess(self, latency: Latency) -> float:
        """How much of what is allowed a student takes: 1 is exactly all."""
        by_time = 0.0 if self.ms is None else latency.ms / self.ms
        return by_time if self.ratio is None else latency.ratio.median / self.ratio


@dataclass(frozen=True)
class Task:
    """What a search works with; ``held_back`` judges, ``class_names`` are the detector's."""

    source: ZenDetStudent
    learned: Pictures
    held_back: Pictures
    class_names: tuple[str, ...]
    target: Target
    stopwatch: Stopwatch
    seed: int

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.learned.spec.height, self.learned.spec.width


def load_base(checkpoint: Path, structure: Path) -> ZenDetStudent:
    """The detector of a checkpoint.

    Raises:
        CheckpointError, ConfigError: it is of another family or structure, or cannot be read.
        InputError: it is a backbone alone.
    """
    source = ZenDetStudent.load(checkpoint, read_structure(structure))
    if not isinstance(source.model(), Detector):
        raise InputError(
            f"{checkpoint} is a backbone alone, expected a whole GFLV2 detector: students learn to "
            "find what is labelled"
        )
    return source


def split(samples: Sequence[Sample], spec: ImageSpec, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures to learn from, and those that judge.

    Raises:
        InputError: there are too few.
    """
    if len(samples) < _FEWEST:
        raise InputError(
            f"there {'is' if len(samples) == 1 else 'are'} {counted(len(samples), 'picture')} with "
            f"labels, expected at least {_FEWEST}: a student learns from most, and the others judge"
        )
    shuffled = random.Random(seed).sample(samples, len(samples))
    count = min(len(shuffled) // HELD_BACK, MOST_HELD_BACK)
    return Pictures(shuffled[count:], spec), Pictures(shuffled[:count], spec)
