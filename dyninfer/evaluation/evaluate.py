"""Precision, shares and time of a detector at one policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dyninfer.errors import InputError
from dyninfer.evaluation.coco import AveragePrecision, Truth, average_precision
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.exit_times import NS_PER_MS
from dyninfer.evaluation.outcomes import ReadingNotes, read_all
from dyninfer.results.detections import Detections
from dyninfer.results.postprocess import EVALUATION
from dyninfer.routing.goal import describe_setting
from dyninfer.runtime.detector import Detector


@dataclass(frozen=True)
class PolicyResult:
    """One policy on all pictures.

    Attributes:
        policy: what was set, in words, and the threshold that a target came to.
        precision: COCO's six numbers.
        exit_shares: share of the pictures that left at each exit.
        mean_ms: mean wall-clock milliseconds of a picture, one at a time, from the decoded picture
            to detections with the default :class:`dyninfer.Postprocess`.
        samples: the pictures that could be read, and warnings about the others.
    """

    policy: str
    precision: AveragePrecision
    exit_shares: tuple[float, ...]
    mean_ms: float
    samples: Samples


def evaluate_policy(
    detector: Detector,
    samples: Samples,
    time_limit: int,
    progress: Callable[[], None] = lambda: None,
) -> PolicyResult:
    """Precision at the detector's policy; works for static detectors too.

    Args:
        detector: an opened bundle with the policy to measure.
        samples: pictures, all with their truth.
        time_limit: at most so many pictures, spread evenly, are run once more for their time.
        progress: called after every picture.

    Raises:
        InputError: no picture can be read, or there is no object in any.
    """
    notes = ReadingNotes()
    kept: list[Sample] = []
    spent_ms: list[float] = []
    found: list[Detections] = []
    stride = math.ceil(len(samples.items) / time_limit)
    for sample, image in read_all(samples.items, notes, progress):
        found.append(detector(image, options=EVALUATION))
        if len(kept) % stride == 0:
            spent_ms.append(wall_clock_ms(partial(detector, image)))
        kept.append(sample)
    readable = replace(samples, items=tuple(kept), warnings=(*samples.warnings, *notes.warnings()))
    truths = objects_of(readable)
    leaving = np.bincount([f.exit_index for f in found], minlength=len(detector.manifest.ways))
    return PolicyResult(
        describe_setting(detector.policy, detector.active_policy),
        average_precision(truths, found, len(detector.class_names)),
        tuple((leaving / len(found)).tolist()),
        float(np.mean(spent_ms)),
        readable,
    )


def wall_clock_ms(run: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / NS_PER_MS


def objects_of(samples: Samples) -> list[Truth]:
    """The truths, for a precision to be taken.

    Raises:
        InputError: nothing could be read, or there is nothing to find in any picture.
    """
    truths = samples.truths or []
    if not any((~truth.crowds).any() for truth in truths):
        raise InputError(
            f"there is no object of the detector's classes in {len(truths)} pictures; "
            "average precision needs at least one"
        )
    return truths
