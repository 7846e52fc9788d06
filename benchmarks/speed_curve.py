"""Accuracy and time of one detector at several policies, measured on labelled scenes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.benchmarks.coco import Truth, average_precision
from dyninfer.benchmarks.exits import EVALUATION
from dyninfer.benchmarks.scenes import Scene
from dyninfer.detector import Detector
from dyninfer.policy import AlwaysEasy, AlwaysHard, Policy, Threshold
from dyninfer.types import Detections, Float32Array

PERCENTILES = (25, 50, 75)


@dataclass(frozen=True)
class CurvePoint:
    """One policy on all scenes.

    Attributes:
        policy: what was set.
        hard_share: share of the scenes that reached the last exit, in [0, 1].
        ap, ap50: COCO average precision, in [0, 1].
        mean_ms: wall-clock milliseconds per image, from the decoded picture to detections as an
            application wants them, that is above a confidence of 0.25.
        results: these detections of every scene, in order. Precision is that of another run, with
            :data:`EVALUATION`.
    """

    policy: Policy
    hard_share: float
    ap: float
    ap50: float
    mean_ms: float
    results: tuple[Detections, ...]


def measure_easiness(detector: Detector, scenes: Sequence[Scene]) -> Float32Array:
    """Easiness (N,) of every scene, on the opened engines."""
    detector.policy = AlwaysEasy()
    results = detector([scene.image for scene in scenes])
    return np.array([result.easiness for result in results], np.float32)


def spread_policies(easiness: Float32Array) -> list[Policy]:
    """From all easy to all hard, with the thresholds at percentiles of the easiness between.

    The p-th percentile as threshold sends p % of the images on.
    """
    thresholds = [Threshold(float(np.percentile(easiness, p))) for p in PERCENTILES]
    return [AlwaysEasy(), *thresholds, AlwaysHard()]


def measure_curve(
    detector: Detector,
    scenes: Sequence[Scene],
    policies: Sequence[Policy],
    progress: Callable[[], None] = lambda: None,
) -> list[CurvePoint]:
    """Run every scene, one at a time, at every policy.

    The policies take turns on each scene, so that a machine whose speed drifts is fair to all.

    Args:
        detector: an opened bundle; its policy is left at the last one.
        scenes: labelled images.
        policies: what to measure.
        progress: called after every scene.
    """
    results: list[list[Detections]] = [[] for _ in policies]
    evaluated: list[list[Detections]] = [[] for _ in policies]
    spent_ns = np.zeros(len(policies), np.int64)
    for scene in scenes:
        for index, policy in enumerate(policies):
            detector.policy = policy
            start = time.perf_counter_ns()
            results[index].append(detector(scene.image))
            spent_ns[index] += time.perf_counter_ns() - start
            evaluated[index].append(detector(scene.image, options=EVALUATION))
        progress()
    truths = [Truth(scene.boxes_xyxy, scene.class_ids) for scene in scenes]
    last = len(detector.manifest.exits) - 1
    points = []
    for index, policy in enumerate(policies):
        found = results[index]
        precision = average_precision(truths, evaluated[index], len(detector.class_names))
        hard = sum(result.exit_index == last for result in found) / len(found)
        mean_ms = float(spent_ns[index]) / 1e6 / len(found)
        ap, ap50 = precision.ap or 0.0, precision.ap50 or 0.0
        points.append(CurvePoint(policy, hard, ap, ap50, mean_ms, tuple(found)))
    return points
