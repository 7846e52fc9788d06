"""What the model card promises, on a smaller set of the same held-out scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.demo import EMBEDDED_CHECKPOINT
from dyninfer.demo.scenes import CLASS_NAMES, Scene, SceneSource
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.results.postprocess import EVALUATION

SCENES = 300
SIZE = 192

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return SceneSource("held_out", SIZE).scenes(range(SCENES))


@pytest.fixture(scope="module")
def routes(scenes: list[Scene], embedded_bundle: Path) -> dict[str, list[dyninfer.Detections]]:
    images = [scene.image for scene in scenes]
    with dyninfer.load(embedded_bundle) as detector:
        found = {}
        for name, policy in (("easy", dyninfer.AlwaysEasy()), ("hard", dyninfer.AlwaysHard())):
            detector.policy = policy
            found[name] = detector(images, options=EVALUATION)
    return found


def precision(scenes: list[Scene], found: list[dyninfer.Detections]) -> float:
    truths = [Truth(scene.boxes_xyxy, scene.class_ids) for scene in scenes]
    ap = average_precision(truths, found, len(CLASS_NAMES)).ap
    assert ap is not None
    return 100 * ap


def mix(
    routes: dict[str, list[dyninfer.Detections]], hard: np.ndarray
) -> list[dyninfer.Detections]:
    pairs = zip(routes["easy"], routes["hard"], hard, strict=True)
    return [second if is_hard else first for first, second, is_hard in pairs]


def test_the_checkpoint_is_small() -> None:
    assert EMBEDDED_CHECKPOINT.stat().st_size <= 6e6


def test_the_second_exit_is_at_least_three_points_better(
    scenes: list[Scene], routes: dict[str, list[dyninfer.Detections]]
) -> None:
    assert precision(scenes, routes["hard"]) >= precision(scenes, routes["easy"]) + 3


def test_the_router_beats_a_random_choice_at_half_by_a_point(
    scenes: list[Scene], routes: dict[str, list[dyninfer.Detections]]
) -> None:
    easiness = np.array([found.easiness for found in routes["easy"]])
    half = SCENES // 2
    chosen = np.zeros(SCENES, bool)
    chosen[np.argsort(easiness)[:half]] = True
    random = [
        precision(scenes, mix(routes, np.random.default_rng(seed).permutation(chosen)))
        for seed in range(5)
    ]
    assert precision(scenes, mix(routes, chosen)) >= np.mean(random) + 1
