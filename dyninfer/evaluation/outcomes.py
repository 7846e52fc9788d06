"""Pictures through every exit of a cascade: what calibration and evaluation are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.routed_precision import PictureMatches, match_picture
from dyninfer.evaluation.traces import trace_picture
from dyninfer.images.reading import read_image
from dyninfer.results.detections import Detections
from dyninfer.results.postprocess import EVALUATION, Postprocess
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray

MIN_IMAGES = 2
SENSIBLE_IMAGES = 100


@dataclass(frozen=True)
class Outcomes:
    """Pictures through every exit.

    Attributes:
        samples: those that could be read, and warnings about the others.
        easiness: (exits - 1, N), NaN where a router said so.
        losses: (exits - 1, N), 1 - F1 of what an exit finds against what the last finds.
        matches: one entry for every picture where its truth is known, else None.
    """

    samples: Samples
    easiness: Float64Array
    losses: Float64Array
    matches: tuple[PictureMatches, ...] | None


def refuse_few(count: int) -> None:
    """Refuse fewer pictures than a percentile can be taken of.

    Raises:
        InputError: there are fewer than two.
    """
    if count < MIN_IMAGES:
        raise InputError(
            f"{count} usable picture{'' if count == 1 else 's'} given, expected at least "
            f"{MIN_IMAGES}, and better {SENSIBLE_IMAGES} or more, like those to be run later"
        )


def run_samples(
    detector: Detector, samples: Samples, progress: Callable[[], None] = lambda: None
) -> Outcomes:
    """Run every picture once through every exit.

    Pictures are read one after the other; of their detections only matches are kept, so that
    thousands fit into memory. One that cannot be read is left out with a warning.

    Raises:
        InputError: fewer than two pictures can be read.
    """
    kept: list[Sample] = []
    easiness: list[list[float]] = []
    losses: list[list[float]] = []
    matches: list[PictureMatches] = []
    notes = ReadingNotes()
    task = detector.manifest.task.kind
    for sample, image in read_all(samples.items, notes, progress):
        ways = trace_picture(detector, image).ways
        found = [way.answer(Postprocess()) for way in ways]
        kept.append(sample)
        easiness.append([np.nan if w.easiness is None else w.easiness for w in ways[:-1]])
        losses.append([task.loss(early, found[-1]) for early in found[:-1]])
        if sample.truth is not None:
            exact = [cast(Detections, way.answer(EVALUATION)) for way in ways]
            matches.append(match_picture(sample.truth, exact))
    refuse_few(len(kept))
    readable = replace(samples, items=tuple(kept), warnings=(*samples.warnings, *notes.warnings()))
    return Outcomes(
        readable,
        np.array(easiness, np.float64).T,
        np.array(losses, np.float64).T,
        tuple(matches) if matches else None,
    )


@dataclass(frozen=True)
class ReadingNotes:
    """What was noticed while pictures were read, one entry for each.

    Attributes:
        unreadable: why a picture was left out.
        resized: pictures of another size than the annotations say.
    """

    unreadable: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """One line for each kind, or none."""
        kinds = (
            ("unreadable pictures are left out", self.unreadable),
            ("pictures are of another size than the annotations say", self.resized),
        )
        return [
            f"{len(notes)} {what}: {notes[0]}"
            + (f" (and {len(notes) - 1} more)" if len(notes) > 1 else "")
            for what, notes in kinds
            if notes
        ]


def read_all(
    items: Sequence[Sample], notes: ReadingNotes, progress: Callable[[], None]
) -> Iterator[tuple[Sample, ImageArray]]:
    """The pictures that can be read; what is wrong with them goes to ``notes``."""
    for sample in items:
        try:
            image = read_image(sample.path)
        except InputError as error:
            notes.unreadable.append(str(error))
        else:
            size = image.shape[1], image.shape[0]
            if sample.size is not None and sample.size != size:
                notes.resized.append(
                    f"{sample.path} has {size[0]}x{size[1]} (width, height), not "
                    f"{sample.size[0]}x{sample.size[1]}; give the pictures that were annotated"
                )
            yield sample, image
        progress()


def only_readable(samples: Samples, progress: Callable[[], None] = lambda: None) -> Samples:
    """The pictures that can be read, with warnings about the others; ``progress`` after each."""
    notes = ReadingNotes()
    kept = tuple(sample for sample, _ in read_all(samples.items, notes, progress))
    return replace(samples, items=kept, warnings=(*samples.warnings, *notes.warnings()))


def pictures_to_time(samples: Samples, limit: int) -> list[Sample]:
    """At most ``limit`` pictures, spread evenly over all."""
    count = len(samples.items)
    chosen = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int))
    return [samples.items[index] for index in chosen]


def read_pictures(items: Iterable[Sample]) -> Iterator[ImageArray]:
    """The pictures, decoded one after the other."""
    return (read_image(item.path) for item in items)
