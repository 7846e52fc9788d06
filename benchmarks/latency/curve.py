"""What the router says of the user's pictures, and what each threshold would do with them."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from dyninfer.benchmarks.latency.pictures import BenchPictures
from dyninfer.benchmarks.latency.record import PicturesRecord, SampleImage, ThresholdPoint
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.bundle.manifest import EASINESS
from dyninfer.errors import InputError
from dyninfer.evaluation.calibrate import make_rows
from dyninfer.evaluation.outcomes import MIN_IMAGES, Outcomes, run_samples
from dyninfer.evaluation.way_times import WayTimes, measure_way_times
from dyninfer.routing.thresholds import SEND_ALL, shared_easiness
from dyninfer.runtime.detector import Detector
from dyninfer.types import ImageArray

SAMPLES = 24
SAMPLE_WIDTH = 160  # pixels
JPEG_QUALITY = 70


def describe_pictures(
    detector: Detector,
    pictures: BenchPictures,
    results: Sequence[ScenarioResult],
    progress: Callable[[str], object] = lambda _what: None,
) -> tuple[PicturesRecord, dict[str, str]]:
    """What was run, as the record holds it, and what of it is missing.

    Made-up pictures have no easiness. The results of the scenarios give the milliseconds along the
    curve.
    """
    plain = plain_pictures(pictures)
    manifest = detector.manifest
    if pictures.samples is None:
        reason = "made-up pictures say nothing of a router; give --images"
        return plain, {"easiness": reason, "curve": reason}
    if {point.signal for point in detector.points} != {EASINESS}:
        reason = f"{manifest.name} has no router, so there is no threshold"
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
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise InputError("a picture cannot be encoded as JPEG")
    return data.tobytes()


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
