from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer import Classification, Detections, InputError, RawOutput, TopK
from tests import support

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


@given(LOGITS, st.integers(1, 15))
def test_the_best_classes_come_first_with_their_softmax(logits, count) -> None:
    values = np.array(logits, np.float32)
    ids, confidences = TopK(count)(values)
    weights = np.exp(values.astype(np.float64) - values.max())
    expected = weights / weights.sum()
    assert len(ids) == min(count, len(logits))
    assert ids.dtype == np.int64
    assert confidences.dtype == np.float32
    np.testing.assert_allclose(confidences, expected[ids], rtol=1e-5, atol=1e-7)
    assert ids.tolist() == sorted(range(len(logits)), key=lambda k: (-values[k], k))[:count]


def test_all_classes_add_up_to_one_and_a_large_logit_overflows_nothing() -> None:
    _, confidences = TopK(3)(np.array([1000, 999, -1000], np.float32))
    assert confidences.sum() == pytest.approx(1)
    assert np.isfinite(confidences).all()


def test_a_logit_that_is_nan_comes_last_with_no_confidence() -> None:
    ids, confidences = TopK(3)(np.array([np.nan, 1, 2], np.float32))
    assert ids.tolist() == [2, 1, 0]
    assert confidences[2] == 0
    assert TopK(1)(np.array([np.nan, np.nan], np.float32))[1].tolist() == [0]


@pytest.mark.parametrize("count", [0, -1, 2.5, "3"])
def test_a_count_that_means_nothing_is_refused(count) -> None:
    with support.refuses(InputError, "count", "from 1 up"):
        TopK(count)


def test_a_classification_is_checked_and_becomes_json() -> None:
    made = Classification(
        np.array([2, 0]), np.array([0.75, 0.25], np.float32), ("blue", "red"), 0.5, 1
    )
    assert len(made) == 2
    document = json.loads(json.dumps(made.to_dict()))
    assert document["classes"][0] == {"class_id": 2, "class_name": "blue", "confidence": 0.75}
    assert (document["easiness"], document["exit_index"], document["degraded"]) == (0.5, 1, False)
    with support.refuses(InputError, "class_ids (1,)", "2 class names"):
        Classification(np.array([2]), np.array([0.75, 0.25], np.float32), ("blue", "red"))


def test_results_print_on_one_line_what_matters() -> None:
    count = 300
    names = tuple(f"thing {i}" for i in range(count))
    confidences = np.linspace(0.98, 0.26, count).astype(np.float32)
    found = Detections(np.ones((count, 4), np.float32), confidences, np.arange(count), names, 0.914)
    assert str(found) == (
        "<Detections of 300: thing 0 0.98, thing 1 0.98, thing 2 0.98, thing 3 0.97, thing 4 0.97, "
        "...; exit_index 0, easiness 0.91>"
    )
    none = Detections(np.ones((0, 4), np.float32), confidences[:0], np.arange(0), (), degraded=True)
    assert f"{[none]}" == "[<Detections of 0: nothing; exit_index 0, degraded>]"
    escaping = Classification(np.arange(1), confidences[:1], ("\x1b[2J",), None, 2)
    assert repr(escaping) == r"<Classification of 1: \x1b[2J 0.98; exit_index 2>"
    raw = RawOutput(0.5, 1, {"boxes_xyxy": np.ones((8400, 4), np.float32)})
    assert str(raw) == "<RawOutput of boxes_xyxy (8400, 4); exit_index 1, easiness 0.50>"
