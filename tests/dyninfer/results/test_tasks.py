from __future__ import annotations

import numpy as np

from dyninfer import Classification, Detections, ImageSpec, InputError, Postprocess, TopK
from dyninfer.results.tasks import TASKS, check_options
from tests import support

PLACED = ImageSpec(8, 8).place(16, 16)


def test_every_task_answers_with_what_it_was_told() -> None:
    detect, classify = TASKS["detect"], TASKS["classify"]
    boxes = {
        "boxes_xyxy": np.array([[0, 0, 4, 4]], np.float32),
        "class_scores": np.array([[0.25, 0.75]], np.float32),
    }
    took = {"easiness": 0.5, "exit_index": 1, "timings_ms": {"body": 1.0}}
    found = detect.answer(boxes, PLACED, detect.defaults, ("left", "right"), **took)
    assert isinstance(found, Detections)
    assert found.boxes_xyxy.tolist() == [[0, 0, 8, 8]]
    assert found.class_names == ("right",)
    logits = {"logits": np.array([0, 3, 1], np.float32)}
    said = classify.answer(logits, PLACED, TopK(2), ("red", "green", "blue"), **took)
    assert isinstance(said, Classification)
    assert said.class_names == ("green", "blue")
    for answer in (found, said):
        assert (answer.easiness, answer.exit_index, answer.degraded) == (0.5, 1, False)
        assert answer.timings_ms == {"body": 1.0}


def test_two_classifications_agree_where_they_name_the_same_class_first() -> None:
    def named(*ids: int) -> Classification:
        return Classification(
            np.array(ids), np.full(len(ids), 0.5, np.float32), tuple("ab"[: len(ids)])
        )

    loss = TASKS["classify"].loss
    assert loss(named(1, 0), named(1, 2)) == 0
    assert loss(named(0, 1), named(1, 0)) == 1


def test_options_of_another_task_are_refused() -> None:
    check_options(TASKS["detect"], Postprocess(), "mine")
    with support.refuses(InputError, "TopK", "mine takes dyninfer.Postprocess"):
        check_options(TASKS["detect"], TopK(), "mine")
    with support.refuses(InputError, "Postprocess", "mine takes dyninfer.TopK"):
        check_options(TASKS["classify"], Postprocess(), "mine")
