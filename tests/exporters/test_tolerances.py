from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.parity import Errors, SignalPairs, Tolerance, count_flips
from dyninfer.runtime.plan import plan
from tests import support


def test_no_router_means_no_decisions() -> None:
    flips = count_flips(np.empty(0, np.float32), np.empty(0, np.float32))
    assert (flips.decisions, flips.flips, flips.share) == (0, 0, 0.0)


def test_one_image_is_decided_at_the_default_threshold_only() -> None:
    flips = count_flips(np.array([0.49], np.float32), np.array([0.51], np.float32))
    assert (flips.decisions, flips.flips, flips.share) == (1, 1, 1.0)


@pytest.mark.parametrize("least", [0.1, 0.7])
def test_neighbours_that_change_places_are_flips(least: float) -> None:
    expected = np.array([0, 0.1, 0.2], np.float32) + np.float32(least)
    flips = count_flips(expected, expected[[1, 0, 2]])
    assert flips.decisions == 9
    assert flips.flips == 2


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_equal_easiness_never_flips(values: list[float]) -> None:
    easiness = np.array(values, np.float32)
    assert count_flips(easiness, easiness.copy()).flips == 0


def checked(tensor: str, error: float, largest: float, rounding: float | None = None) -> bool:
    source = np.array([largest, 0.0])
    errors = Errors()
    errors.add("stage", tensor, source + error, source)
    noise = Errors()
    noise.add("stage", tensor, source + (rounding or 0.0), source)
    (check,) = errors.checks(Tolerance(), None if rounding is None else noise)
    return check.passed


@pytest.mark.parametrize(
    ("tensor", "error", "largest", "passes"),
    [
        ("boxes_xyxy", 0.0, 0.0, True),
        ("boxes_xyxy", 0.9e-3, 10.0, True),
        ("boxes_xyxy", 1.1e-3, 10.0, False),
        ("boxes_xyxy", 1.1e-3, 6000.0, False),
        ("easiness", 0.9e-5, 0.5, True),
        ("easiness", 1.1e-5, 0.5, False),
        ("class_scores", 0.9e-4, 1.0, True),
        ("class_scores", 1.1e-4, 1.0, False),
        ("logits", 1.9e-4, 20.0, True),
        ("logits", 2.1e-4, 20.0, False),
        ("choice_scores", 0.9e-4, 10.0, True),
        ("choice_scores", 1.1e-4, 10.0, False),
        ("feature_24", 9e-4, 10.0, True),
        ("feature_24", 1.1e-3, 10.0, False),
        ("feature_24", float("inf"), 10.0, False),
        ("boxes_xyxy", float("nan"), 10.0, False),
    ],
)
def test_tolerances(tensor: str, error: float, largest: float, passes: bool) -> None:
    assert checked(tensor, error, largest) is passes


@pytest.mark.parametrize(
    ("error", "rounding", "passes"),
    [(0.01, 0.0, False), (0.01, 0.0021, True), (0.01, 0.0019, False), (0.0009, 0.0, True)],
)
def test_an_error_no_larger_than_the_sources_own_rounding_passes(
    error: float, rounding: float, passes: bool
) -> None:
    assert checked("boxes_xyxy", error, 1000.0, rounding) is passes


def test_errors_keep_the_largest_of_all_samples_and_never_lose_a_nan() -> None:
    errors = Errors()
    source = np.array([1.0, -4.0])
    errors.add("head", "boxes_xyxy", source + 0.5, source)
    errors.add("head", "boxes_xyxy", source, source)
    errors.add("second", "boxes_xyxy", np.array([np.nan, -4.0]), source)
    errors.add("second", "boxes_xyxy", source, source)
    head, second = errors.checks(Tolerance())
    assert (head.max_abs, head.max_rel, head.passed) == (0.5, 0.125, False)
    assert second.max_abs == float("inf")
    assert second.passed is False


def test_averages_are_judged_by_the_size_of_their_own_channel() -> None:
    source = np.array([[1000.0, 1e-3, 0.0], [900.0, -5e-4, 0.0]])

    def passes(**errors: np.ndarray) -> bool:
        compared, noise = Errors(), Errors()
        for image in (0, 1):  # in two batches
            one = source[image : image + 1]
            compared.add("first", "pooled", one + errors["found"], one)
            noise.add("first", "pooled", one + errors.get("rounding", 0.0), one)
        rounding = noise if "rounding" in errors else None
        (check,) = compared.checks(Tolerance(), rounding)
        return check.passed

    assert passes(found=np.array([0.05, 0.9e-7, 0.0]))
    assert not passes(found=np.array([0.0, 1.1e-7, 0.0]))
    assert not passes(found=np.array([0.0, 0.0, 1e-9]))
    assert not passes(found=np.array([0.0, np.nan, 0.0]))
    assert passes(found=np.array([0.0, 4e-7, 0.0]), rounding=np.array([0.0, 1e-7, 0.0]))
    assert not passes(found=np.array([0.0, 4e-7, 0.0]), rounding=np.array([1e-3, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("tensor", "shape"), [("value", (1, 3)), ("feature", (1, 3)), ("pooled", (1, 3, 1, 1))]
)
def test_other_vectors_and_maps_are_judged_by_the_largest_of_all(tensor, shape) -> None:
    source = np.array([1000.0, 1e-3, 0.0]).reshape(shape)
    errors = Errors()
    errors.add("first", tensor, source + 0.05, source)
    (check,) = errors.checks(Tolerance())
    assert check.passed


@pytest.mark.parametrize(
    ("largest", "relative"), [(0.0, 0.5), (0.25, 2.0), (1.0, 0.5), (4.0, 0.125)]
)
def test_an_error_is_relative_to_the_largest_value_where_there_is_one(largest, relative) -> None:
    errors = Errors()
    source = np.array([0.0, -largest])
    errors.add("body", "feature", source + 0.5, source)
    (check,) = errors.checks(Tolerance())
    assert check.max_rel == relative


@pytest.mark.parametrize("sides", [(), (None, 0), (0, None), (None, None)])
def test_what_one_side_does_not_decide_is_no_decision(tmp_path, sides) -> None:
    pairs = SignalPairs(plan(Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest))
    if sides:
        pairs.add(*([None if side is None else np.array([0.3], np.float32)] for side in sides))
    assert pairs.flips() == {}
    pairs.add([np.array([0.4, 0.6], np.float32)], [np.array([0.6, 0.6], np.float32)])
    assert (pairs.flips()["router"].decisions, pairs.flips()["router"].flips) == (4, 2)
