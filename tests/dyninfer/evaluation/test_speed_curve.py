from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import read_pictures, run_samples
from dyninfer.evaluation.speed_curve import (
    measure_points,
    pooled_times,
    spread_policies,
    times_of_ends,
)
from dyninfer.routing.goals import HardFraction
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Threshold
from tests.dyninfer.evaluation.coded import write_coded, write_labels


def test_the_settings_run_from_all_easy_to_all_hard() -> None:
    policies = spread_policies()
    assert (policies[0], policies[-1]) == (AlwaysEasy(), AlwaysHard())
    assert policies[1:-1] == [HardFraction(share) for share in (0.25, 0.5, 0.75)]


def test_every_policy_is_run_and_its_precision_is_that_of_its_exits(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    pictures = write_coded(tmp_path / "pictures", (0, 51, 204, 255))
    labels = write_labels(tmp_path / "labels.json", pictures)
    samples = load_samples(pictures, labels, ("left", "right"))
    scores = run_samples(two_exits, samples).scores
    assert scores is not None
    policies = [AlwaysEasy(), Threshold(0.5), AlwaysHard()]
    images = list(read_pictures(samples.items))
    points = measure_points(two_exits, images, policies, scores)
    assert [point.policy for point in points] == policies
    assert [point.hard_share for point in points] == [0, 0.5, 1]
    assert points[0].scores.primary == pytest.approx(1)
    assert points[2].scores.primary == 0
    assert points[1].scores == scores.at([1, 1, 0, 0])
    for point in points:
        assert len(point.timed.ms) == len(point.timed.answers) == 4
        assert point.mean_ms > 0
    times = times_of_ends(points[0], points[-1])
    assert times.ms == (points[0].timed.ms, points[2].timed.ms)
    engines = {"first", "router", "second"}
    assert set(times.step_ms[1]) == {"prepare", *engines, "read-back", "postprocess"}


def test_times_of_equal_work_are_pooled() -> None:
    spent = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    exits = np.array([[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(pooled_times(spent, exits), [[2, 2], [2, 12], [10, 12]])
