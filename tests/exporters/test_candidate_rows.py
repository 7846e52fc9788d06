"""Candidates whose order is rounding's, and those that are others."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from dyninfer.bundle.manifest import Stage, TensorSpec
from dyninfer.exporters import candidate_rows
from dyninfer.exporters.candidate_rows import (
    CANDIDATES,
    candidates_of,
    in_order_of,
    is_ranked,
)
from dyninfer.exporters.parity import Errors, Tolerance
from dyninfer.exporters.precision.sensitivity import deviations
from tests.support import ordered_candidates


@pytest.fixture
def source() -> dict[str, np.ndarray]:
    return ordered_candidates()


def swapped(source: dict[str, np.ndarray], order: list[int]) -> dict[str, np.ndarray]:
    return {name: array[:, order] for name, array in source.items()}


def errors(source: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, float]:
    measured = Errors()
    measured.add_all("body", found, source)
    return {check.tensor: check.max_abs for check in measured.checks(Tolerance())}


def test_equal_candidates_are_left_as_they_are(source) -> None:
    found = in_order_of(source, source, 1, 1e-4)
    assert all(np.array_equal(found[name], array) for name, array in source.items())
    assert errors(source, source) == {"boxes_xyxy": 0, "class_scores": 0}


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4, 5], [0, 2, 1, 5, 3, 4], [5, 4, 3, 2, 1, 0]])
def test_candidates_in_another_order_are_found_again(source, order) -> None:
    found = swapped(source, order)
    found["boxes_xyxy"] = found["boxes_xyxy"] + np.float32(1e-4)
    assert errors(source, found)["boxes_xyxy"] == pytest.approx(1e-4, rel=0.1)
    assert errors(source, found)["class_scores"] == 0


@pytest.mark.parametrize(("away", "are_found"), [(0, True), (0.75, True), (1.5, False)])
def test_candidates_of_one_score_are_found_by_their_boxes(source, away, are_found) -> None:
    source["class_scores"][0, 2:5] = source["class_scores"][0, 2]
    found = swapped(source, [1, 0, 4, 2, 3, 5])
    found["boxes_xyxy"] = found["boxes_xyxy"] + np.float32(away)
    assert errors(source, found)["class_scores"] == 0
    assert (errors(source, found)["boxes_xyxy"] == away) is are_found


def test_each_image_has_an_order_of_its_own(source) -> None:
    both = {name: np.concatenate([array, array]) for name, array in source.items()}
    for moved in (0, 1):  # and the other image stays as it is
        found = {name: array.copy() for name, array in both.items()}
        for array in found.values():
            array[moved] = array[moved, [1, 0, 2, 3, 4, 5]]
        assert errors(both, found) == {"boxes_xyxy": 0, "class_scores": 0}


@pytest.mark.parametrize(("away", "is_same"), [(0.9, True), (1.0, True), (1.1, False)])
def test_a_candidate_that_moved_as_far_as_is_allowed_is_the_same(source, away, is_same) -> None:
    found = swapped(source, [1, 0, 2, 3, 4, 5])
    found["boxes_xyxy"] = found["boxes_xyxy"] + np.float32(away)
    left = in_order_of(source, found, 1.0, 1e-4)["boxes_xyxy"]
    assert np.allclose(left, source["boxes_xyxy"] + away) is is_same


def test_one_candidate_has_no_order_and_ties_do_not_disturb_one() -> None:
    def ranked(*best: float) -> bool:
        return is_ranked(np.array(best, np.float32)[None, :, None])

    assert not ranked(0.5)
    assert ranked(0.9, 0.8)
    assert not ranked(0.8, 0.9)
    assert ranked(0.9, 0.9, 0.9, 0.8, 0.7)
    assert not ranked(0.9, 0.9, 0.9, 0.9, 0.9)
    assert not ranked(0.9, 0.8, 0.7, 0.75, 0.6)  # of four neighbours one rises
    assert ranked(0.9, 0.8, *[0.0] * 40)  # the peaks of a heatmap, and what fills up the list
    assert not ranked(0.8, 0.9, *[0.0] * 40)


def test_the_last_of_a_list_may_be_another_of_the_same_score(source) -> None:
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 5] = [500, 500, 510, 510]
    found["class_scores"][0, 5] = found["class_scores"][0, 5][::-1] + np.float32(3e-5)
    assert errors(source, found)["boxes_xyxy"] == 0
    assert errors(source, found)["class_scores"] == pytest.approx(3e-5, rel=1e-2)
    ordered = in_order_of(source, found, 1, 1e-4)["class_scores"]
    assert ordered[0, 5].max() == found["class_scores"][0, 5].max()  # above the source's own


@pytest.mark.parametrize("nearer", [0, 1])
def test_a_row_stands_for_the_nearer_of_two_alone(source, nearer) -> None:
    """The other one has no row then, though that one is its nearest, too."""
    other = 1 - nearer
    source["boxes_xyxy"][0, other] = source["boxes_xyxy"][0, nearer] + np.float32(0.5)
    source["class_scores"][0, 1] = source["class_scores"][0, 0]
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 0] = source["boxes_xyxy"][0, nearer] + np.float32(0.125)
    found["boxes_xyxy"][0, 1] = 500
    ordered = in_order_of(source, found, 1, 1e-4)["boxes_xyxy"]
    assert ordered[0, nearer].tolist() == found["boxes_xyxy"][0, 0].tolist()
    assert ordered[0, other].tolist() == [500] * 4


def test_another_of_any_other_score_is_an_error(source) -> None:
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 2] = [500, 500, 510, 510]
    assert errors(source, found)["boxes_xyxy"] > 200
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 5] = [500, 500, 510, 510]
    found["class_scores"][0, 5] += np.float32(0.01)
    assert errors(source, found)["boxes_xyxy"] > 200
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 2] = [500, 500, 510, 510]
    found["class_scores"][0, 2] = source["class_scores"][0, 5]
    assert errors(source, found)["boxes_xyxy"] > 200  # where it stands, though as low as the last


@pytest.mark.parametrize(
    ("score", "ends"), [(0.375, True), (np.nextafter(np.float32(0.375), np.float32(1)), False)]
)
def test_up_to_the_margin_above_the_lowest_a_list_ends_in_equals(source, score, ends) -> None:
    source["class_scores"][0, 5] = [0.25, 0]
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 5] = 500
    found["class_scores"][0, 5, 0] = score
    ordered = in_order_of(source, found, 1, 0.125)["boxes_xyxy"]
    assert np.array_equal(ordered, source["boxes_xyxy"]) is ends


def test_what_is_new_at_the_end_goes_in_the_order_of_its_own_scores(source) -> None:
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 3:] += 500
    found["class_scores"][0, 3:] = source["class_scores"][0, [4, 5, 3]]
    for name, array in in_order_of(source, found, 1, 1.0).items():
        np.testing.assert_array_equal(array, source[name])


def test_scores_of_other_boxes_are_an_error(source) -> None:
    found = swapped(source, [1, 0, 2, 3, 4, 5])
    found["class_scores"] = source["class_scores"][:, [3, 1, 2, 0, 4, 5]]
    assert errors(source, found)["class_scores"] > 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_an_infinite_error(source, value) -> None:
    found = swapped(source, [1, 0, 2, 3, 4, 5])
    found["boxes_xyxy"][0, 3] = value
    assert errors(source, found)["boxes_xyxy"] == np.inf


def test_what_lower_precision_does_to_an_order_is_no_deviation(source) -> None:
    found = swapped(source, [1, 0, 2, 3, 5, 4])
    assert is_ranked(source["class_scores"])
    assert deviations(source, found) == {"boxes_xyxy": pytest.approx(0), "class_scores": 0}
    anchors = swapped(source, [3, 0, 4, 1, 5, 2])
    assert not is_ranked(anchors["class_scores"])
    assert deviations(anchors, swapped(anchors, [1, 0, 2, 3, 4, 5]))["boxes_xyxy"] > 0.3


def test_other_tensors_and_other_shapes_are_left_alone(source) -> None:
    features = {"feature": np.ones((1, 2)), "boxes_xyxy": source["boxes_xyxy"]}
    assert in_order_of(features, features, 1, 1e-4).keys() == features.keys()
    short = {name: array[:, :3] for name, array in source.items()}
    assert errors(source, short)["boxes_xyxy"] == np.inf
    assert errors(short, source)["boxes_xyxy"] == np.inf
    beside = source | {"feature": np.ones((1, 6))}
    moved = swapped(beside, [1, 0, 2, 3, 4, 5])
    assert errors(beside, moved) == {"boxes_xyxy": 0, "class_scores": 0, "feature": 0}


def test_anchors_whose_scores_hardly_differ_are_compared_as_they_stand() -> None:
    """Else all of them would stand for each other, and a wrong box would be no error."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 100, (1, 80, 4)).astype(np.float32)
    for scores in (np.zeros((1, 80, 3)), rng.uniform(0, 1e-5, (1, 80, 3))):
        source = {"boxes_xyxy": boxes, "class_scores": scores.astype(np.float32)}
        found = source | {"boxes_xyxy": boxes * np.float32(1.01)}
        np.testing.assert_array_equal(
            in_order_of(source, found, 1, 1e-4)["boxes_xyxy"], found["boxes_xyxy"]
        )


@pytest.mark.parametrize(
    ("steps", "ranked"),
    [("f" * 9 + "r", True), ("f" * 8 + "rr", False), ("ttttttfffr", True), ("tttttttffr", False)],
)
def test_more_than_four_fifths_may_not_rise_and_more_than_a_fifth_fall(steps, ranked) -> None:
    """From one of ten neighbours to the next it falls, rises or is the same."""
    best = np.cumsum([0.5, *({"f": -0.01, "t": 0, "r": 0.005}[step] for step in steps)])
    assert is_ranked(best[None, :, None].astype(np.float32)) is ranked


def test_how_many_candidates_a_stage_gives_on_is_the_length_of_its_boxes() -> None:
    outputs = [
        TensorSpec(name=name, dtype="float32", shape=("batch", count, 4))
        for name, count in (("a_feature", 5), ("boxes_xyxy", 7), ("class_scores", 9))
    ]
    for order in (outputs, outputs[::-1]):
        stage = Stage(
            file="a.onnx", sha256="0" * 64, inputs=(), outputs=tuple(order), parameters=0, macs=0
        )
        assert candidates_of(stage) == 7
    assert CANDIDATES == 1000


@pytest.mark.parametrize(
    ("spare", "compared"), [({}, True), ({"spare": 0.16}, True), ({"spare": 1 / 6}, False)]
)
def test_a_share_of_candidates_may_be_others(source, spare, compared) -> None:
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 2] = [500, 500, 510, 510]
    ordered = in_order_of(source, found, 1, 1e-4, **spare)["boxes_xyxy"]
    assert bool(ordered[0, 2, 0] == 500) is compared
    assert np.array_equal(ordered, source["boxes_xyxy"]) is not compared


def test_proposals_are_found_again_where_there_are_no_boxes(source) -> None:
    proposals = {
        "proposals": source["boxes_xyxy"],
        "objectness": source["class_scores"].max(2, keepdims=True),
    }
    ordered = in_order_of(proposals, swapped(proposals, [1, 0, 2, 3, 5, 4]), 1, 1e-4)
    for name, array in proposals.items():
        np.testing.assert_array_equal(ordered[name], array)


@pytest.mark.parametrize(("ulps", "is_found"), [(0, False), (1, True)])
def test_a_row_within_a_thousandth_of_a_pixel_is_where_it_was(source, ulps, is_found) -> None:
    """Its scores are then its own, though another row has these very ones."""
    near = {name: array.copy() for name, array in source.items()}
    away = np.float32(1e-3)
    near["boxes_xyxy"][0, :2] = 0
    near["boxes_xyxy"][0, 1, 0] = np.nextafter(away, np.float32(1)) if ulps else away
    ordered = in_order_of(near, swapped(near, [1, 0, 2, 3, 4, 5]), 1, 1e-4)
    assert np.array_equal(ordered["class_scores"], near["class_scores"]) is is_found


@pytest.mark.parametrize(("away", "is_same"), [(0.095, True), (0.105, False)])
def test_a_tenth_of_a_score_is_as_far_as_a_pixel(source, away, is_same) -> None:
    found = {name: array.copy() for name, array in source.items()}
    found["boxes_xyxy"][0, 0] += 0.5
    found["class_scores"][0, 0] += np.float32(away)
    ordered = in_order_of(source, found, 1.0, 1e-4, spare=1.0)["boxes_xyxy"]
    assert np.array_equal(ordered, found["boxes_xyxy"]) is is_same


def test_candidates_less_than_a_pixel_apart_are_told_from_one_another(source) -> None:
    near = {name: array.copy() for name, array in source.items()}
    near["boxes_xyxy"][0, 1] = near["boxes_xyxy"][0, 0] + np.float32(0.5)
    assert errors(near, swapped(near, [1, 0, 2, 3, 4, 5]))["class_scores"] == 0


@pytest.mark.parametrize(("count", "looked_for"), [(4096, True), (4097, False)])
def test_so_many_rows_are_looked_for(monkeypatch, count: int, looked_for: bool) -> None:
    asked: list[int] = []

    def distances(ones: np.ndarray, _others: np.ndarray) -> np.ndarray:
        asked.append(len(ones))
        raise ZeroDivisionError

    monkeypatch.setattr(candidate_rows, "_distances", distances)
    source = {
        "boxes_xyxy": np.zeros((1, count, 4), np.float32),
        "class_scores": np.linspace(1, 0, count, dtype=np.float32).reshape(1, -1, 1),
    }
    found = source | {"boxes_xyxy": np.ones((1, count, 4), np.float32)}
    with contextlib.suppress(ZeroDivisionError):
        in_order_of(source, found, 1, 1e-4)
    assert asked == [count] * looked_for
