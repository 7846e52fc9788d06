"""The pictures that are run: synthetic, or the user's, and what the router says of those."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dyninfer.benchmarks.latency.record import PicturesRecord, SampleImage, ThresholdPoint
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.bundle.manifest import EASINESS
from dyninfer.errors import InputError
from dyninfer.evaluation.calibrate import make_rows
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.outcomes import (
    MIN_IMAGES,
    Outcomes,
    ReadingNotes,
    pictures_to_time,
    read_all,
    run_samples,
)
from dyninfer.evaluation.runs import WayTimes, measure_way_times
from dyninfer.routing.thresholds import SEND_ALL, shared_easiness
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float32Array, ImageArray

DEFAULT_SIZE = (720, 1280)
SYNTHETIC_COUNT = 8
DEFAULT_KEPT = 64
OF_THE_USER = "own pictures"
SAMPLES = 24
SAMPLE_WIDTH = 160  # pixels
JPEG_QUALITY = 70


@dataclass(frozen=True)
class BenchPictures:
    """Pictures in memory, and where they came from.

    Attributes:
        what: in words that go after their number.
        arrays: (h, w, 3) uint8 BGR each, at least one.
        samples: their files and what is in them; None for synthetic ones.
        warnings: what was left out, one line each.
    """

    what: str
    arrays: tuple[ImageArray, ...]
    samples: Samples | None = None
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> Sequence[Path]:
        """Their files, in the order of ``arrays``; empty for synthetic ones."""
        return () if self.samples is None else [item.path for item in self.samples.items]

    @property
    def sizes(self) -> Mapping[str, int]:
        """``HxW`` -> how many, most frequent first."""
        counted = Counter(f"{array.shape[0]}x{array.shape[1]}" for array in self.arrays)
        return dict(counted.most_common())


def synthetic_pictures(height: int, width: int) -> BenchPictures:
    """Pictures that a decoder or resizer treats as photographs; there is nothing to find in them.

    There are :data:`SYNTHETIC_COUNT`: a few, and their mirror images.
    """
    rng = np.random.default_rng(0)
    arrays: list[ImageArray] = []
    while len(arrays) < SYNTHETIC_COUNT:
        one = _photo_like(rng, height, width)
        arrays += [one, one[::-1], one[:, ::-1], one[::-1, ::-1]]
    kept = tuple(np.ascontiguousarray(array) for array in arrays[:SYNTHETIC_COUNT])
    return BenchPictures(f"synthetic pictures, {height}x{width} (height x width)", kept)


def _photo_like(rng: np.random.Generator, height: int, width: int) -> ImageArray:
    """Noise whose amplitude falls with its frequency, as that of photographs does.

    Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", J. Opt. Soc. Am. A 4 (1987): amplitude goes with 1 / frequency.
    """
    canvas = np.zeros((height, width, 3), np.float32)
    cells, amplitude = 2, 60.0
    while cells < max(height, width):
        coarse: Float32Array = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        canvas += amplitude * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        cells, amplitude = cells * 2, amplitude / 2
    return np.clip(canvas + 128, 0, 255).astype(np.uint8)


def load_pictures(
    samples: Samples, kept: int = DEFAULT_KEPT, progress: Callable[[], None] = lambda: None
) -> BenchPictures:
    """Decode at most ``kept`` pictures, spread evenly over all; the others are not read.

    Raises:
        InputError: none of them can be read.
    """
    notes = ReadingNotes()
    chosen = pictures_to_time(samples, kept)
    read = list(read_all(chosen, notes, progress))
    if not read:
        raise InputError(
            f"no picture of {len(chosen)} can be read: {notes.unreadable[0]}; "
            "give pictures, or leave --images out for synthetic ones"
        )
    usable = notes.left_of(samples, [sample for sample, _ in read])
    return BenchPictures(OF_THE_USER, tuple(array for _, array in read), usable, usable.warnings)


def describe_pictures(
    detector: Detector,
    pictures: BenchPictures,
    results: Sequence[ScenarioResult],
    progress: Callable[[str], object] = lambda _what: None,
) -> tuple[PicturesRecord, dict[str, str]]:
    """What was run, as the record holds it, and what of it is missing.

    Synthetic pictures have no easiness. The results of the scenarios give the milliseconds along
    the curve.
    """
    plain = plain_pictures(pictures)
    manifest = detector.manifest
    if pictures.samples is None:
        reason = "synthetic pictures say nothing about a router; give --images"
        return plain, {"easiness": reason, "curve": reason}
    if {point.signal for point in detector.points} != {EASINESS}:
        what = "a chooser in place of an easiness" if manifest.routed else "no router"
        reason = f"{manifest.name} has {what}, so there is no threshold"
        return plain, {"easiness": reason, "curve": reason}
    if len(pictures.arrays) < MIN_IMAGES:
        return plain, {"curve": f"one picture makes no curve; give {MIN_IMAGES} or more"}
    progress("running every exit")
    outcomes = run_samples(detector, pictures.samples)
    times = exit_times(results, len(manifest.ways))
    if times is None:
        progress("timing every exit")
        times = measure_way_times(detector, pictures.arrays)
    progress("making the curve")
    points, missing = curve_points(outcomes, times)
    return replace(
        plain,
        easiness=tuple(tuple(map(_or_none, row)) for row in outcomes.easiness.tolist()),
        curve=points,
        samples=sample_images(pictures, outcomes),
    ), missing


def plain_pictures(pictures: BenchPictures) -> PicturesRecord:
    """What was run, without what a router says of it."""
    return PicturesRecord(pictures.what, len(pictures.arrays), pictures.sizes)


def exit_times(results: Sequence[ScenarioResult], exits: int) -> WayTimes | None:
    """Milliseconds of the images at each exit, from calls of one image that were made in turns.

    None where an exit was not reached in a closed loop of one caller.
    """
    found: list[list[float]] = [[] for _ in range(exits)]
    for result in results:
        scenario = result.scenario
        if scenario.is_plain and scenario.one_way:
            for entry in result.exits:
                if entry.share == 1:
                    found[entry.exit_index] = [ms for calls in result.rounds_ms for ms in calls]
    if not all(found):
        return None
    return WayTimes(tuple(map(tuple, found)), ())


def curve_points(
    outcomes: Outcomes, times: WayTimes
) -> tuple[tuple[ThresholdPoint, ...], dict[str, str]]:
    """Points by rising hard fraction, one for each that a percentile of the easiness reaches."""
    missing = {}
    if outcomes.scores is None:
        missing["ap"] = "what is in the pictures is not known; give --annotations"
    points = {
        row.hard_fraction: ThresholdPoint(
            row.threshold,
            row.hard_fraction,
            row.mean_ms,
            row.scores.primary,
            row.scores.secondary,
            row.agreement,
        )
        for row in make_rows(outcomes, times, lambda: None)
    }
    everywhere = np.full(len(outcomes.samples.items), len(outcomes.easiness))
    last = outcomes.figures_at(everywhere, times.ms)
    scores = last.scores
    points[1.0] = ThresholdPoint(SEND_ALL, 1.0, last.mean_ms, scores.primary, scores.secondary, 1.0)
    return tuple(points[share] for share in sorted(points)), missing


def sample_images(pictures: BenchPictures, outcomes: Outcomes) -> tuple[SampleImage, ...]:
    """Some of the pictures from the hardest to the easiest, small, by name and without a folder.

    Of ``outcomes``, which may lack some of ``pictures``: a file can go while it is measured.
    """
    arrays = dict(zip(pictures.paths, pictures.arrays, strict=True))
    paths, easiness = [item.path for item in outcomes.samples.items], outcomes.easiness
    order = np.argsort(shared_easiness(easiness), kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(SAMPLES, len(order))).round().astype(int))
    return tuple(
        SampleImage(
            name=paths[index].name,
            easiness=tuple(map(_or_none, easiness[:, index].tolist())),
            jpeg_base64=base64.b64encode(_thumbnail(arrays[paths[index]])).decode(),
        )
        for index in order[places]
    )


def _thumbnail(image: ImageArray) -> bytes:
    scale = min(1.0, SAMPLE_WIDTH / image.shape[1])
    size = (round(image.shape[1] * scale), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
