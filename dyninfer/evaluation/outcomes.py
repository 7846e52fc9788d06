"""Pictures along every way of a bundle, whatever decides: what calibration and evaluation need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.calibration import Figures
from dyninfer.bundle.manifest import CHOICE_SCORES, EASINESS, CascadeRoute, Manifest
from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.scoring import SCORING, RoutedScores
from dyninfer.images.pictures import MAX_PIXELS, read_image
from dyninfer.images.spec import Placement
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer
from dyninfer.results.scores import Scores
from dyninfer.results.tasks import Options, TaskKind
from dyninfer.routing.policy import DecisionPoint, Policy, default_policy
from dyninfer.routing.thresholds import mean_ms, replay
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.stage_runner import Trace
from dyninfer.types import Float32Array, Float64Array, ImageArray, Int64Array

MIN_IMAGES = 2
SENSIBLE_IMAGES = 100


@dataclass(frozen=True)
class AtWay:
    """A picture at the end of one way, before postprocessing: to be postprocessed in several ways.

    ``outputs`` are without the batch axis; ``placement`` is where the picture lies in the way's
    input, and ``easiness`` what the way's own router said.
    """

    task: TaskKind
    outputs: Mapping[str, npt.NDArray[Any]]
    placement: Placement
    class_names: Sequence[str]
    easiness: float | None
    way: int

    def answer(self, options: Options) -> Answer:
        """What a call with these options would give."""
        return self.task.answer(
            self.outputs,
            self.placement,
            options,
            self.class_names,
            easiness=self.easiness,
            exit_index=self.way,
            timings_ms={},
        )


@dataclass(frozen=True)
class PictureTrace:
    """A picture along every way.

    ``signals`` are those of the route's decisions: an easiness (), or scores (branches,); None
    where nothing makes one.
    """

    ways: tuple[AtWay, ...]
    signals: tuple[Float32Array | None, ...]


def trace_picture(detector: Detector, image: ImageArray) -> PictureTrace:
    """Run a picture (h, w, 3) uint8 BGR along every way, each stage once."""
    return picture_of(detector.manifest, detector.trace(detector.prepare([image])), image)


TracePicture = Callable[[ImageArray], PictureTrace]
"""As :func:`trace_picture`, on something else than a detector's engines."""


def answer_at(
    found: PictureTrace, points: Sequence[DecisionPoint], policy: Policy, options: Options
) -> Answer:
    """What a policy that learns nothing from it makes of a picture that took every way."""
    columns = [_column([signal]) for signal in found.signals]
    (way,) = replay(points, columns, policy, 1).tolist()
    chosen: AtWay = found.ways[way]
    return chosen.answer(options)


def picture_of(manifest: Manifest, found: Trace, image: ImageArray, row: int = 0) -> PictureTrace:
    """One picture (h, w, 3) of a batch that was traced; ``row`` is its position there."""
    signals = tuple(None if signal is None else signal[row] for signal in found.signals)
    at_exits = isinstance(manifest.route, CascadeRoute)
    easiness = [None if not at_exits or s is None else float(s) for s in signals]
    ways = []
    for index, (way, outputs) in enumerate(zip(manifest.ways, found.ways, strict=True)):
        spec = manifest.image_inputs[way.image_input]
        ways.append(
            AtWay(
                manifest.task.kind,
                {name: array[row] for name, array in outputs.items()},
                spec.place(image.shape[1], image.shape[0]),
                manifest.class_names,
                easiness[index] if index < len(easiness) else None,
                index,
            )
        )
    return PictureTrace(tuple(ways), signals)


@dataclass(frozen=True)
class Outcomes:
    """Pictures along every way.

    Attributes:
        samples: those that could be read, and warnings about the others.
        easiness: (routers, N), NaN where a router said so; no rows where nothing makes any.
        choice_scores: (N, branches) of a chooser; no columns without one.
        losses: (ways - 1, N), how far the answers of every other way are from the hardest one's,
            in [0, 1].
        taken: (N,) way of each picture by the bundle's default policy.
        scores: of any choice of ways, where something is known of the pictures, else None.
        macs: multiply-accumulates of an image that takes each way.
        hardest: the last exit of a cascade, or the dearest branch.
        hardest_found: how many results it gave, of all pictures.
    """

    samples: Samples
    easiness: Float64Array
    choice_scores: Float32Array
    losses: Float64Array
    taken: Int64Array
    scores: RoutedScores | None
    macs: tuple[int, ...]
    hardest: int
    hardest_found: int

    def figures_at(self, ways: Int64Array, way_ms: Sequence[Sequence[float]]) -> Figures:
        """What comes of every picture taking the given way, (N,).

        ``way_ms`` are measured milliseconds of images that take each.
        """
        losses = np.insert(self.losses, self.hardest, 0.0, axis=0)  # it agrees with itself
        shares = np.bincount(ways, minlength=len(losses)) / len(ways)
        return Figures(
            mean_ms=mean_ms(shares, way_ms),
            mean_macs=float(shares @ np.array(self.macs, np.float64)),
            scores=Scores() if self.scores is None else self.scores.at(ways),
            agreement=float(1 - losses[ways, np.arange(len(ways))].mean()),
        )


def refuse_few(count: int) -> None:
    """Refuse fewer pictures than a percentile can be taken of.

    Raises:
        InputError: there are fewer than two.
    """
    if count < MIN_IMAGES:
        raise InputError(
            f"{counted(count, 'usable picture')} given, expected at least "
            f"{MIN_IMAGES}, and better {SENSIBLE_IMAGES} or more, like those to be run later"
        )


def run_samples(
    detector: Detector,
    samples: Samples,
    progress: Callable[[], None] = lambda: None,
    trace_of: TracePicture | None = None,
) -> Outcomes:
    """Run every picture once along every way, each stage once, on engines or by ``trace_of``.

    Pictures are read one after the other; of their answers only losses and what is right of them
    are kept, so that thousands fit into memory. One that cannot be read is left out with a warning.

    Raises:
        InputError: fewer than two pictures can be read.
    """
    manifest, notes = detector.manifest, ReadingNotes()
    task, scoring = manifest.task.kind, SCORING[manifest.task]
    labelled, exact = samples.labelled, scoring.options(manifest)
    noted: list[Any] = []
    kept: list[Sample] = []
    signals: list[Sequence[Float32Array | None]] = []
    losses: list[list[float]] = []
    hardest, hardest_found = manifest.ways_by_cost[-1], 0
    for sample, image in read_all(samples.items, notes, progress, detector.max_pixels):
        trace = trace_of(image) if trace_of else trace_picture(detector, image)
        found = [way.answer(manifest.use_options) for way in trace.ways]
        reference = found.pop(hardest)
        hardest_found += len(reference)
        kept.append(sample)
        signals.append(trace.signals)
        losses.append([task.loss(other, reference) for other in found])
        if labelled:
            noted.append(scoring.note(sample, [way.answer(exact) for way in trace.ways]))
    refuse_few(len(kept))
    columns = [_column(values) for values in zip(*signals, strict=True)]
    pairs = [*zip(detector.points, columns, strict=True)]
    easiness = [column for point, column in pairs if point.signal == EASINESS]
    chosen = [column for point, column in pairs if point.signal == CHOICE_SCORES]
    return Outcomes(
        notes.left_of(samples, kept),
        np.array(easiness, np.float64).reshape(-1, len(kept)),
        chosen[0] if chosen else np.zeros((len(kept), 0), np.float32),
        np.array(losses, np.float64).reshape(len(kept), -1).T,
        replay(detector.points, columns, default_policy(detector.points), len(kept)),
        scoring.scores(noted) if labelled else None,
        tuple(manifest.macs_to(way) for way in range(len(manifest.ways))),
        hardest,
        hardest_found,
    )


def _column(values: Sequence[Float32Array | None]) -> Float32Array:
    """A signal of all pictures (N,) or (N, branches); NaN where nothing makes it."""
    return np.array([np.nan if value is None else value for value in values], np.float32)


@dataclass(frozen=True)
class ReadingNotes:
    """Pictures that were left out, and why, and those of another size than annotations say."""

    unreadable: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def left_of(self, samples: Samples, kept: Sequence[Sample]) -> Samples:
        """Those that are kept, with one more warning for each kind of note."""
        kinds = (
            ("left out, unreadable", self.unreadable),
            ("of another size than the annotations say", self.resized),
        )
        warnings = [
            f"{what}: {counted(len(notes), 'picture')}: {notes[0]}"
            + (f" (and {len(notes) - 1} more)" if len(notes) > 1 else "")
            for what, notes in kinds
            if notes
        ]
        return replace(samples, items=tuple(kept), warnings=(*samples.warnings, *warnings))


def read_all(
    items: Sequence[Sample],
    notes: ReadingNotes,
    progress: Callable[[], None],
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[Sample, ImageArray]]:
    """The pictures that can be read; what is wrong with them goes to ``notes``."""
    for sample in items:
        try:
            image = read_image(sample.path, max_pixels)
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
    return notes.left_of(samples, [s for s, _ in read_all(samples.items, notes, progress)])


def pictures_to_time(samples: Samples, limit: int) -> list[Sample]:
    """At most ``limit`` pictures, spread evenly over all."""
    count = len(samples.items)
    chosen = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int))
    return [samples.items[index] for index in chosen]


def read_pictures(items: Iterable[Sample], max_pixels: int = MAX_PIXELS) -> Iterator[ImageArray]:
    """The pictures, decoded one after the other."""
    return (read_image(item.path, max_pixels) for item in items)
