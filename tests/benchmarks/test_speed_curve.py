from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.benchmarks.scenes import Scene
from dyninfer.benchmarks.speed_curve import measure_curve, measure_easiness, spread_policies
from dyninfer.policy import AlwaysEasy, AlwaysHard, Threshold


@pytest.fixture
def scenes() -> list[Scene]:
    rng = np.random.default_rng(0)
    return [
        Scene(
            rng.integers(0, 256, (64, 96, 3), np.uint8),
            np.array([[5, 5, 40, 40]], np.float32),
            np.array([index % 2]),
            index / 7,
        )
        for index in range(8)
    ]


def test_thresholds_lie_at_percentiles_of_the_easiness() -> None:
    easiness = np.linspace(0, 1, 101, dtype=np.float32)
    policies = spread_policies(easiness)
    assert policies[0] == AlwaysEasy()
    assert policies[-1] == AlwaysHard()
    values = [policy.value for policy in policies if isinstance(policy, Threshold)]
    assert values == [float(np.percentile(easiness, p)) for p in (25, 50, 75)]


def test_the_share_of_hard_scenes_is_what_the_percentile_says(
    small_bundle: Path, scenes: list[Scene]
) -> None:
    with dyninfer.load(small_bundle) as detector:
        easiness = measure_easiness(detector, scenes)
        points = measure_curve(detector, scenes, spread_policies(easiness))
    assert [point.hard_share for point in points] == [0, 0.25, 0.5, 0.75, 1]
    for point in points:
        assert len(point.results) == len(scenes)
        assert 0 <= point.ap <= 1
        assert point.mean_ms > 0
