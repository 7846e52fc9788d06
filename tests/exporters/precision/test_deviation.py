from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.exporters.precision.deviation import deviations, paired_iou


def detections(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 500, (2, 300, 2)), rng.uniform(5, 100, (2, 300, 2))
    return {
        "boxes_xyxy": np.concatenate([corner, corner + size], -1).astype(np.float32),
        "class_scores": rng.random((2, 300, 4), np.float32),
    }


def test_equal_outputs_do_not_deviate() -> None:
    outputs = detections() | {"easiness": np.array([0.5], np.float32)}
    found = deviations(outputs, outputs)
    assert found.pop("boxes_xyxy") == pytest.approx(0, abs=1e-9)
    assert set(found.values()) == {0.0}


def test_only_boxes_that_may_become_detections_count() -> None:
    reference = detections()
    found = {name: array.copy() for name, array in reference.items()}
    worst = reference["class_scores"].max(-1).argsort(1)[:, :150]
    for row in range(2):
        found["boxes_xyxy"][row, worst[row]] += 300
        found["class_scores"][row, worst[row]] = 0
    assert max(deviations(reference, found).values()) == pytest.approx(0, abs=1e-9)


@given(factor=st.floats(0.01, 2))
def test_features_deviate_by_their_relative_error(factor) -> None:
    array = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    found = deviations({"feature": array}, {"feature": array * np.float32(1 + factor)})
    assert found["feature"] == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize("name", ["feature", "boxes_xyxy", "class_scores", "easiness"])
def test_what_is_not_finite_deviates_without_end(name) -> None:
    reference = detections() | {name: detections().get(name, np.ones((2, 1), np.float32))}
    broken = reference | {name: reference[name] * np.float32(np.nan)}
    assert deviations(reference, broken)[name] == np.inf


def test_overlap_of_pairs() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]], float)
    others = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(paired_iou(boxes, others)[:2], [1 / 3, 0])
    assert 0 <= paired_iou(boxes, others)[2] <= 1
