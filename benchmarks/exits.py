"""What every exit of a cascade finds in every picture, whatever its router says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.detector import Detector
from dyninfer.images import read_image
from dyninfer.policy import LeaveAt
from dyninfer.postprocess import Postprocess
from dyninfer.types import Detections, Float64Array, ImageArray

# As the published evaluation: low confidence, several labels per box
EVALUATION = Postprocess(confidence=0.001, iou=0.65, several_labels=True)


@dataclass(frozen=True)
class ExitRuns:
    """The same pictures through every exit.

    Attributes:
        found: one tuple for every exit, with the detections of every picture there.
        easiness: (exits - 1, N), NaN where there is no router or it said NaN.
    """

    found: tuple[tuple[Detections, ...], ...]
    easiness: Float64Array

    def __len__(self) -> int:
        return len(self.found[0])


def run_every_exit(
    detector: Detector,
    pictures: Sequence[Path | ImageArray],
    options: Postprocess = EVALUATION,
    progress: Callable[[], None] = lambda: None,
) -> ExitRuns:
    """Run every picture through every exit, one at a time.

    Args:
        detector: an opened bundle; its policy is changed and put back.
        pictures: files, read one after the other, or (h, w, 3) uint8 BGR arrays.
        options: of the postprocessing.
        progress: called after every picture.

    Raises:
        InputError: a picture cannot be read.
    """
    exits = len(detector.manifest.exits)
    found: list[list[Detections]] = [[] for _ in range(exits)]
    with kept_policy(detector):
        for picture in pictures:
            image = read_image(picture) if isinstance(picture, Path) else picture
            for index in range(exits):
                detector.policy = LeaveAt(index)
                found[index].append(detector(image, options=options))
            progress()
    easiness = [
        [np.nan if result.easiness is None else result.easiness for result in results]
        for results in found[:-1]
    ]
    return ExitRuns(
        tuple(tuple(results) for results in found),
        np.array(easiness, np.float64).reshape(exits - 1, len(pictures)),
    )


@contextmanager
def kept_policy(detector: Detector) -> Iterator[None]:
    """The detector's policy is the same after the block as before."""
    before = detector.policy
    try:
        yield
    finally:
        detector.policy = before
