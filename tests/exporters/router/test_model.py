from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.model import (
    DetectionStatistics,
    PooledFeatures,
    build_features,
    pairwise_iou,
)
from dyninfer.results.nms import pairwise_iou as numpy_iou
from tests import support

SIZE = 100


def statistics(boxes, scores, size: int = SIZE) -> dict[str, float]:
    module = DetectionStatistics(size, size, len(boxes))
    values = module(torch.tensor([boxes]).float(), torch.tensor([scores]).float())[0]
    assert torch.isfinite(values).all()
    return dict(zip(module.names, values.expm1().tolist(), strict=True))


def random_detections(seed: int, count: int = 40, classes: int = 3) -> tuple:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (count, 2))], 1)
    return boxes.tolist(), rng.uniform(0, 1, (count, classes)).tolist()


def test_nothing_found_gives_zeros():
    found = statistics([[0, 0, 0, 0]] * 3, [[0.0, 0.0]] * 3)
    assert found.pop("above_0.1") < 0.2  # three soft counts far below the threshold
    assert max(found.values()) < 1e-3


def test_a_certain_box_is_counted_once_and_is_not_unsure():
    found = statistics([[10, 10, 60, 60]], [[1.0, 0.0]])
    assert found["above_0.5"] == pytest.approx(1, abs=1e-3)
    assert found["mean_of_best"] == pytest.approx(1)
    unsure = ("unsure_small", "unsure_medium", "unsure_large", "unsure_classes", "second_class")
    assert all(found[name] == 0 for name in unsure)


def test_a_duplicate_of_the_same_class_changes_nothing():
    box, other = [10, 10, 60, 60], [11, 10, 60, 60]
    once = statistics([box, [0, 0, 0, 0]], [[0.6, 0.1], [0.0, 0.0]])
    twice = statistics([box, other], [[0.6, 0.1], [0.5, 0.1]])
    assert twice == pytest.approx(once, abs=0.05)  # soft counts of nothing are not quite 0


def test_two_classes_on_the_same_thing_show_as_their_overlap():
    boxes = [[10, 10, 60, 60], [10, 10, 60, 60]]
    same = statistics(boxes, [[0.6, 0.0], [0.5, 0.0]])
    different = statistics(boxes, [[0.6, 0.0], [0.0, 0.5]])
    assert same["overlap_of_classes"] == 0
    assert different["overlap_of_classes"] == pytest.approx(2 * 0.6 * 0.5, rel=1e-4)


@pytest.mark.parametrize(("side", "name"), [(5, "small"), (35, "medium"), (95, "large")])
def test_uncertainty_is_told_apart_by_size(side: int, name: str):
    found = statistics([[0, 0, side, side]], [[0.5, 0.0]])
    sizes = {key: found[f"unsure_{key}"] for key in ("small", "medium", "large")}
    assert max(sizes, key=sizes.__getitem__) == name
    assert sizes[name] == pytest.approx(0.25, rel=0.1)


def test_a_single_class_has_no_second():
    found = statistics([[0, 0, 50, 50]], [[0.5]])
    assert found["second_class"] == 0
    assert found["overlap_of_classes"] == 0


def test_only_the_surest_hundred_candidates_count():
    boxes, scores = random_detections(0, count=300)
    best = np.argsort(-np.max(scores, axis=1), kind="stable")[:100]
    whole = statistics(boxes, scores)
    cut = statistics([boxes[i] for i in best], [scores[i] for i in best])
    whole.pop("unsure_classes"), cut.pop("unsure_classes")  # reads all candidates
    assert cut == pytest.approx(whole, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.25, 8))
def test_features_do_not_depend_on_the_image_size(seed: int, factor: float):
    boxes, scores = random_detections(seed)
    module = DetectionStatistics(SIZE, SIZE, len(boxes))
    other = DetectionStatistics(1, 1, len(boxes))
    other.size.copy_(module.size * factor)
    inputs = torch.tensor([boxes]), torch.tensor([scores])
    torch.testing.assert_close(
        module(*inputs), other(inputs[0] * factor, inputs[1]), rtol=1e-2, atol=1e-2
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_features_do_not_depend_on_the_order_of_boxes_or_the_rest_of_the_batch(seed: int):
    (boxes, scores), (others, other_scores) = random_detections(seed), random_detections(seed + 1)
    module = DetectionStatistics(SIZE, SIZE, len(boxes))
    order = np.random.default_rng(seed).permutation(len(boxes))
    alone = module(torch.tensor([boxes]), torch.tensor([scores]))
    batch = module(
        torch.tensor([others, np.array(boxes)[order].tolist()]),
        torch.tensor([other_scores, np.array(scores)[order].tolist()]),
    )
    torch.testing.assert_close(batch[1:], alone, rtol=1e-4, atol=1e-5)


def test_overlaps_are_those_of_the_runtime():
    boxes = torch.tensor([random_detections(1)[0] + [[5, 5, 5, 5], [9, 9, 3, 3]]])
    found = pairwise_iou(boxes)[0].numpy()[:40, :40]
    expected = numpy_iou(boxes[0].numpy(), boxes[0].numpy())[:40, :40]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pooled_features_are_averages_beside_vectors():
    maps = torch.arange(2 * 3 * 4 * 5).float().reshape(2, 3, 4, 5)
    vector = torch.tensor([[7.0], [8.0]])
    found = PooledFeatures(["a", "b", "c", "d"])(maps, vector)
    expected = np.c_[maps.numpy().mean(axis=(2, 3)), vector.numpy()]
    np.testing.assert_allclose(found.numpy(), expected)


def test_auto_takes_detections_where_the_body_ends_in_them(tmp_path):
    static = Bundle.open(support.write_static(tmp_path / "one.dyn")).manifest
    module, specs = build_features(static, 0, FeatureKind.AUTO)
    assert isinstance(module, DetectionStatistics)
    assert [spec.name for spec in specs] == ["boxes_xyxy", "class_scores"]


def test_auto_takes_averages_where_a_head_makes_the_detections(tmp_path):
    two = Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest
    module, specs = build_features(two, 0, FeatureKind.AUTO)
    assert module.names == ("value[0]", "value[1]", "value[2]")
    assert [spec.name for spec in specs] == ["value"]


def test_features_that_the_body_does_not_have_are_refused(tmp_path):
    two = Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest
    with support.refuses(dyninfer.InputError, "boxes_xyxy", "--features pooled"):
        build_features(two, 0, FeatureKind.DETECTIONS)
    static = Bundle.open(support.write_static(tmp_path / "one.dyn")).manifest
    with support.refuses(dyninfer.InputError, "no feature map", "--features detections"):
        build_features(static, 0, FeatureKind.POOLED)
