from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.results import nms as nms_module
from dyninfer.results.nms import nms, pairwise_iou
from tests.dyninfer.results.greedy import candidates, greedy, on_a_grid, overlaps


def test_no_candidates_stay_none() -> None:
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, int), 0.5, 10)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


def test_one_candidate_stays() -> None:
    box = np.array([[-5, -5, 5, 5]], np.float32)
    assert nms(box, np.array([2]), 0.5, 10).tolist() == [0]


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(1, 700),
    seed=st.integers(0, 2**32),
    classes=st.sampled_from([1, 2, 5, 80]),
    spread=st.sampled_from([0.0, 20.0, 200.0, 2000.0]),
    iou=st.sampled_from([0.0, 0.1, 0.45, 0.65, 0.9, 1.0]),
    limit=st.sampled_from([1, 7, 300]),
)
def test_nms_equals_the_greedy_definition(count, seed, classes, spread, iou, limit) -> None:
    boxes, ids = candidates(count, seed, classes=classes, spread=spread, largest=60)
    assert nms(boxes, ids, iou, limit).tolist() == greedy(boxes, ids, iou, limit)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 700),
    seed=st.integers(0, 2**32),
    classes=st.integers(1, 3),
    iou=st.sampled_from([0.0, 0.25, 1 / 3, 0.45, 0.5, 0.6, 2 / 3, 1.0]),
    few=st.sampled_from([0, 256]),
)
def test_an_overlap_equal_to_the_limit_suppresses_nothing(count, seed, classes, iou, few) -> None:
    boxes, ids = on_a_grid(count, seed, classes=classes)
    with patch.object(nms_module, "FEW", few):
        assert nms(boxes, ids, iou, 300).tolist() == greedy(boxes, ids, iou, 300)


@pytest.mark.parametrize(
    ("shift", "kept"), [(999_999, [0]), (1_000_000, [0, 1]), (1_000_001, [0, 1])]
)
def test_an_overlap_that_float32_cannot_tell_from_the_limit_is_judged_exactly(shift, kept) -> None:
    """2,000,001, 2,000,000 and 1,999,999 of 4 million pixels in common, of a half allowed."""
    boxes = np.array([[0, 0, 1, 3e6], [0, shift, 1, 3e6 + shift]], np.float32)
    with patch.object(nms_module, "FEW", 0):
        assert nms(boxes, np.zeros(2, int), 0.5, 10).tolist() == kept
    assert greedy(boxes, np.zeros(2, int), 0.5, 10) == kept


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    chunk=st.sampled_from([1, 63, 64, 65, 200]),
    few=st.sampled_from([0, 1, 30]),
    classes=st.sampled_from([1, 4]),
)
def test_how_the_work_is_cut_does_not_change_the_result(seed, chunk, few, classes) -> None:
    boxes, ids = candidates(260, seed, classes=classes, spread=120, largest=60)
    with patch.multiple(nms_module, CHUNK=chunk, FEW=few):
        found = nms(boxes, ids, 0.5, 300)
    assert found.tolist() == greedy(boxes, ids, 0.5, 300)


@pytest.mark.parametrize("count", [255, 256, 257, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("spread", [30.0, 120.0])
def test_chunks_do_not_change_the_result(count, spread) -> None:
    boxes, ids = candidates(count, count, classes=3, spread=spread, largest=50)
    expected = greedy(boxes, ids, 0.5, count)
    assert 3 <= len(expected) < count
    assert nms(boxes, ids, 0.5, count).tolist() == expected
    assert nms(boxes, ids, 0.5, 5).tolist() == expected[:5]


def test_far_apart_coordinates_keep_their_precision() -> None:
    boxes = np.array([[0, 0, 10, 10], [40, 0, 50, 10], [-1e7, 0, -1e7 + 8, 8]], np.float32)
    kept = nms(boxes, np.zeros(3, int), 0.5, 10)
    assert kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scale", [1e-25, 1e-9, 1e9, 1e25])
def test_boxes_beyond_what_float32_can_multiply_are_told_apart(scale) -> None:
    boxes, ids = candidates(400, 3, classes=2, spread=100, largest=60)
    expected = greedy(boxes, ids, 0.5, 300)
    scaled = (boxes.astype(np.float64) * scale).astype(np.float32)
    assert nms(scaled, ids, 0.5, 300).tolist() == expected
    for order in ([boxes, scaled], [scaled, boxes]):
        mixed, mixed_ids = np.concatenate(order), np.concatenate([ids, ids])
        with patch.object(nms_module, "CHUNK", 300):
            found = nms(mixed, mixed_ids, 0.5, 800)
        assert found.tolist() == greedy(mixed, mixed_ids, 0.5, 800)


def test_class_ids_may_be_large() -> None:
    boxes, ids = candidates(300, 5, classes=3, spread=60, largest=60)
    expected = greedy(boxes, ids, 0.5, 300)
    for apart in (40_000, 1 << 16):
        assert nms(boxes, ids * apart, 0.5, 300).tolist() == expected


@pytest.mark.parametrize("few", [0, 256])
def test_boxes_that_share_neither_columns_nor_rows_do_not_overlap(few) -> None:
    """What they lack in both directions would make an area, were it multiplied."""
    boxes = np.array([[0, 0, 1, 1], [1.5, 20, 2.5, 21], [20, 1.5, 21, 2.5]], np.float32)
    with patch.object(nms_module, "FEW", few):
        assert nms(boxes, np.zeros(3, int), 0.5, 10).tolist() == [0, 1, 2]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.01, 1.0]))
def test_overlaps_equal_their_definition(seed, scale) -> None:
    a, _ = candidates(6, seed, classes=1, spread=20 * scale, largest=30 * scale)
    b, _ = candidates(5, seed + 1, classes=1, spread=20 * scale, largest=30 * scale)
    a[0] = b[0]
    expected = [overlaps(box, b) for box in a]
    np.testing.assert_allclose(pairwise_iou(a, b), expected, atol=1e-5)
