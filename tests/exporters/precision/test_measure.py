"""Figures of a conversion from numbers that are written here, without a conversion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.bundle.manifest import Task
from dyninfer.errors import BrokenOutputError
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.dataset import Sample
from dyninfer.exporters.precision.measure import (
    ExitError,
    _EndSums,
    _errors,
    _scores,
    _sums,
    _tensor_error,
    labels_of,
)
from dyninfer.results.answers import Detections, TopK
from dyninfer.results.postprocess import EVALUATION, Postprocess


def test_a_tensors_error_is_of_all_its_pictures_together() -> None:
    pictures = [
        (np.array([1.0, -4.0]), np.array([1.5, -4.0]), 0.1),
        (np.array([2.0, 1.0]), np.array([1.0, 1.0]), 0.4),
    ]
    error = _tensor_error("first", "value", [_sums(*picture) for picture in pictures])
    assert (error.stage, error.tensor) == ("first", "value")
    assert error.max_abs == 1
    assert error.max_rel == 1 / 4
    assert error.mean_rel == (0.5 + 1) / (1 + 4 + 2 + 1)
    assert error.deviation == pytest.approx(0.25)


def test_of_nothing_but_zeros_the_error_is_as_it_is() -> None:
    error = _tensor_error("first", "value", [_sums(np.zeros(2), np.array([0.5, 0.25]), 0.0)])
    assert (error.max_abs, error.max_rel, error.mean_rel) == (0.5, 0.5, 0.75)
    assert _sums(np.empty(0), np.empty(0), 0.5) == (0, 0, 0, 0, 0.5)
    broken = _tensor_error("a", "b", [_sums(np.ones(2), np.array([1, np.nan]), 0.0)])
    assert broken.max_abs == broken.max_rel == np.inf


def test_the_error_of_a_row_is_that_of_its_worst_number() -> None:
    reference = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    found = reference + np.array([[0, -2, 1], [9, 9, 9], [0.5, 0, 0]])
    chosen = np.array([True, False, True])
    assert _errors(reference, found, chosen).tolist() == [2, 0.5]


def test_a_classifiers_scores_are_a_softmax_in_one_row() -> None:
    logits = np.log(np.array([1, 2, 5], np.float32)) + 80
    scores = _scores(SimpleNamespace(outputs={"logits": logits}))
    np.testing.assert_allclose(scores, [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-5)
    own = np.ones((4, 2))
    assert _scores(SimpleNamespace(outputs={"class_scores": own})) is own


class Side:
    """A picture's two boxes at the end of a way, and what is found of them."""

    def __init__(self, left: float, sure: float) -> None:
        boxes = np.array([[left, 0, left + 10, 10], [50, 50, 60, 60]], np.float32)
        self.outputs = {
            "boxes_xyxy": boxes,
            "class_scores": np.array([[sure, 0.1], [0, 0.2]], np.float32),
        }
        self.task = SimpleNamespace(loss=lambda one, other: abs(len(one) - len(other)) / 4)

    def answer(self, options: Postprocess) -> Detections:
        kept = self.outputs["class_scores"].max(1) >= options.confidence
        boxes, scores = self.outputs["boxes_xyxy"][kept], self.outputs["class_scores"][kept]
        count = len(boxes)
        return Detections(boxes, scores.max(1), scores.argmax(1), ("it",) * count)


def test_an_end_counts_the_boxes_that_float32_is_sure_of() -> None:
    manifest = SimpleNamespace(
        use_options=Postprocess(confidence=0.5), evaluation_options=EVALUATION, task=Task.DETECT
    )
    truth = Truth(np.array([[0.0, 0, 10, 10]]), np.array([0]))
    end = _EndSums()
    end.add(Side(0, 0.9), Side(0.5, 0.8), manifest, truth)
    end.add(Side(0, 0.5), Side(40, 0.2), manifest, truth)
    end.add(Side(0, 0.4), Side(9, 0.9), manifest, truth)  # not sure of any
    found = end.result(1, 2)
    assert (found.exit_index, found.boxes) == (1, 2)
    assert found.score_error_mean == pytest.approx((0.1 + 0.3) / 2)
    assert found.score_error_max == pytest.approx(0.3)
    assert found.box_error_mean_px == pytest.approx((0.5 + 40) / 2)
    assert found.box_error_max_px == pytest.approx(40)
    assert found.disagreement == pytest.approx((0 + 1 / 4 + 1 / 4) / 3)
    assert found.ap_fp32 == pytest.approx(1)
    assert found.ap_converted is not None
    assert 0 < found.ap_converted < 0.9  # one of three is where it should be
    assert _EndSums(losses=[0.0]).result(0, 2).ap_fp32 is None


def test_a_classifier_whose_logits_are_broken_is_not_right() -> None:
    def side(class_id: int | None) -> SimpleNamespace:
        def answer(_options: object) -> SimpleNamespace:
            if class_id is None:
                raise BrokenOutputError("not finite")
            return SimpleNamespace(class_ids=[class_id, 0, 1])

        logits = {"logits": np.zeros(3, np.float32)}
        task = SimpleNamespace(loss=lambda one, other: abs(one.class_ids[0] - other.class_ids[0]))
        return SimpleNamespace(outputs=logits, answer=answer, task=task)

    manifest = SimpleNamespace(use_options=TopK(), task=Task.CLASSIFY)
    end = _EndSums()
    for found in (2, None, 1):
        end.add(side(2), side(found), manifest, 2)
    end.add(side(1), side(2), manifest, 2)
    assert end.right == [(True, True), (True, False), (True, False), (False, True)]
    assert end.losses == [0, 1, 1, 1]
    told = end.result(0, 3)
    assert (told.top1_fp32, told.top1_converted, told.points_lost) == (0.75, 0.5, 25)
    assert (told.boxes, told.score_error_mean, told.score_error_max) == (0, 0, 0)
    end.add(side(1), side(2), manifest, None)
    assert len(end.right) == 4


def error_of(**precisions: float) -> ExitError:
    return ExitError(
        0, 0, None, None, None, None, None, **{"ap_fp32": None, "ap_converted": None} | precisions
    )


@pytest.mark.parametrize(
    ("precisions", "points"),
    [
        ({}, None),
        ({"ap_fp32": 0.5, "ap_converted": 0.25}, 25),
        ({"ap_fp32": 0.25, "ap_converted": 0.5}, -25),
        ({"ap_fp32": 0.5}, None),
        ({"ap_converted": 0.5}, None),
        ({"top1_fp32": 0.75, "top1_converted": 0.5}, 25),
    ],
)
def test_points_lost_are_of_average_precision_or_of_top_1(precisions, points) -> None:
    assert error_of(**precisions).points_lost == points


def test_labels_are_of_all_pictures_or_there_are_none() -> None:
    truth = Truth(np.zeros((0, 4)), np.zeros(0, int))
    path = Path("a.png")
    assert labels_of([Sample(path, truth), Sample(path, truth)]) == [truth, truth]
    assert labels_of([Sample(path, class_id=0), Sample(path, class_id=2)]) == [0, 2]
    assert labels_of([Sample(path), Sample(path)]) is None
