from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dyninfer import Classification, Detections, InputError, RawOutput, TopK
from dyninfer.results.answers import FeatureMaps
from tests import support

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


@settings(deadline=None)
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
    with support.refuses(InputError, "class_ids is int64 (1,)", "2 class names"):
        Classification(np.array([2]), np.array([0.75, 0.25], np.float32), ("blue", "red"))


def made_answers() -> list[Detections | Classification]:
    confidences, ids = np.array([0.75, 0.25], np.float32), np.array([2, 0])
    boxes_xyxy = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    return [
        Detections(boxes_xyxy, confidences, ids, ("bus", "cat"), 0.5, 1, timings_ms={"first": 2.0}),
        Detections(boxes_xyxy[:0], confidences[:0], ids[:0], ()),
        Classification(ids, confidences, ("blue", "red"), degraded=True),
    ]


def test_nothing_but_what_was_found_need_be_told() -> None:
    """The rest is that of one exit without a router, in which all went well."""
    nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    boxes_xyxy = np.zeros((0, 4), np.float32)
    tracked = Detections(boxes_xyxy, nothing[1], nothing[0], (), track_ids=nothing[0])
    for found in (Classification(*nothing, ()), FeatureMaps({}), tracked):
        document = found.to_dict()
        assert document.items() >= {"easiness": None, "exit_index": 0, "timings_ms": {}}.items()
        assert document["degraded"] is False
    assert tracked.to_dict()["predicted"] is False
    assert len(TopK()(np.arange(9, dtype=np.float32))[0]) == 5


def test_numbers_are_written_as_exactly_as_they_mean_something() -> None:
    """Hundredths of pixels, and of confidences and milliseconds what tells apart what is close."""
    confidences, ids = np.array([0.1234567], np.float32), np.array([0])
    timings = {"first": 1.23456789}
    boxes_xyxy = np.array([[1.23456, 0, 2.34567, 9]], np.float32)
    found = Detections(boxes_xyxy, confidences, ids, ("bus",), 0.123456789, timings_ms=timings)
    document = found.to_dict()
    (one,) = document["detections"]
    assert one["box_xyxy"] == [1.23, 0, 2.35, 9]
    assert one["confidence"] == 0.12346
    assert document["timings_ms"] == {"first": 1.2346}
    assert document["easiness"] == 0.123456789
    assert "track_id" not in one
    assert "predicted" not in document
    (best,) = Classification(ids, confidences, ("bus",)).to_dict()["classes"]
    assert best["confidence"] == 0.12346


def test_tracked_objects_have_a_number_from_0_up_or_none() -> None:
    rows = np.ones((3, 4), np.float32), np.ones(3, np.float32), np.zeros(3, np.int64), ("a",) * 3
    for predicted in (False, True):
        found = Detections(*rows, track_ids=np.array([0, -1, 7]), predicted=predicted).to_dict()
        assert [one["track_id"] for one in found["detections"]] == [0, None, 7]
        assert found["predicted"] is predicted
    with support.refuses(InputError, "track_ids is int64 (2,)", "expected int64 (3,)"):
        Detections(*rows, track_ids=np.array([0, 1]))


@pytest.mark.parametrize(("count", "shown"), [(5, 5), (6, 5)])
def test_of_more_than_five_the_surest_are_printed(count: int, shown: int) -> None:
    ids = np.arange(count)
    printed = repr(Classification(ids, np.ones(count, np.float32), ("it",) * count))
    assert printed.count("it 1.00") == shown
    assert ("..." in printed) == (count > shown)


def test_results_are_written_by_pydantic_and_by_encoders_that_ask_for_a_dict() -> None:
    for found in made_answers():
        document = found.to_dict()
        assert json.loads(json.dumps(dict(found))) == document == {**found}
        kind = type(found)
        assert TypeAdapter(kind).dump_python(found) == document
        listed = TypeAdapter(list[kind]).dump_json([found, found])
        assert json.loads(listed) == [document, document]
        assert TypeAdapter(kind).json_schema(mode="serialization")["type"] == "object"
        assert not dataclasses.is_dataclass(found)
        with pytest.raises(ValidationError, match=f"instance of {kind.__name__}"):
            TypeAdapter(kind).validate_python(document)


def test_a_result_is_of_one_image_and_says_so_to_a_subscript() -> None:
    found = made_answers()[0]
    assert found["exit_index"] == 1
    with support.refuses(InputError, "attributes: class_ids, confidences, boxes_xyxy"):
        found["boxes_xyxy"]
    for wrong in (0, "boxes_xyxy", slice(2)):
        with support.refuses(InputError, repr(wrong), "easiness, exit_index, ", "one image"):
            found[wrong]
    with pytest.raises(TypeError, match="not iterable"):
        list(found)


def test_fastapi_answers_with_what_an_endpoint_returns() -> None:
    fastapi = pytest.importorskip("fastapi")
    client = pytest.importorskip("fastapi.testclient").TestClient
    made = made_answers()
    application = fastapi.FastAPI()

    @application.get("/one")
    def one():
        return made[0]

    @application.get("/many")
    def many():
        return {"frames": [*made, None]}

    @application.get("/typed")
    def typed() -> list[Detections | Classification]:
        return made

    with client(application) as service:
        documents = [found.to_dict() for found in made]
        assert service.get("/one").json() == documents[0]
        assert service.get("/many").json() == {"frames": [*documents, None]}
        assert service.get("/typed").json() == documents
        assert service.get("/openapi.json").status_code == 200


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


def test_a_raw_output_is_itself_and_no_other() -> None:
    """Its arrays could not say in one word whether they are equal."""
    one, other = (RawOutput(0.5, 0, {"logits": np.zeros(3, np.float32)}) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2
