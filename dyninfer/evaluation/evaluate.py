"""Scores, shares and time of a detector at one policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.outcomes import ReadingNotes, read_all
from dyninfer.evaluation.scoring import SCORING
from dyninfer.evaluation.way_times import time_once
from dyninfer.results.answers import Answer
from dyninfer.routing.goals import describe_setting
from dyninfer.runtime.detector import Detector


@dataclass(frozen=True)
class PolicyResult:
    """One policy on the pictures that could be read.

    Attributes:
        policy: what was set, in words, and the threshold that a goal came to.
        title: what ``scores`` are, in one word.
        scores: everything that the task's scoring says, by name.
        exit_shares: share of the pictures that took each way.
        mean_ms: of a picture, from the decoded one to answers with the bundle's own options.
        samples: with warnings about pictures that could not be read.
    """

    policy: str
    title: str
    scores: Mapping[str, float | None]
    exit_shares: tuple[float, ...]
    mean_ms: float
    samples: Samples


def evaluate_policy(
    detector: Detector,
    samples: Samples,
    time_limit: int,
    progress: Callable[[], None] = lambda: None,
) -> PolicyResult:
    """Scores at the detector's policy, of whatever bundle.

    At most ``time_limit`` pictures, spread evenly, are run once more for their time.

    Raises:
        InputError: no picture can be read, or there is nothing to find in any.
    """
    scoring = SCORING[detector.manifest.task]
    options = scoring.options(detector.manifest)
    notes = ReadingNotes()
    kept: list[Sample] = []
    spent_ms: list[float] = []
    found: list[Answer] = []
    stride = math.ceil(len(samples.items) / time_limit)
    for sample, image in read_all(samples.items, notes, progress):
        found += detector.answers([image], options=options)
        if len(kept) % stride == 0:
            spent_ms.append(time_once(detector, image)[0])
        kept.append(sample)
    readable = notes.left_of(samples, kept)
    scoring.check(readable, detector.class_names)
    taken = np.bincount([f.exit_index for f in found], minlength=len(detector.manifest.ways))
    return PolicyResult(
        describe_setting(detector.policy, detector.active_policy),
        scoring.title,
        scoring.measure(readable, found, len(detector.class_names)),
        tuple((taken / len(found)).tolist()),
        float(np.mean(spent_ms)),
        readable,
    )
