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
    FittedRouter,
    LinearGain,
    PooledFeatures,
    Reader,
    build_features,
    confidence_reader,
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


@pytest.mark.parametrize(
    ("box", "same"),
    [([-50, 0, 150, 20], [0, 0, 100, 20]), ([90, 90, 10, 10], [0, 0, 0, 0])],
    ids=["wider than the image", "the wrong way round"],
)
def test_a_boxs_sides_are_between_nothing_and_the_image(box: list, same: list):
    assert statistics([box], [[0.5, 0.0]]) == statistics([same], [[0.5, 0.0]])


def test_what_is_no_surer_than_the_background_is_not_unsure():
    found = statistics([[0, 0, 50, 50]], [[0.1, 0.05]])
    unsure = ("unsure_small", "unsure_medium", "unsure_large", "second_class")
    assert [found[name] for name in unsure] == [0] * 4
    assert statistics([[0, 0, 50, 50]], [[0.11, 0.05]])["second_class"] == pytest.approx(0.05)


def test_boxes_that_overlap_by_half_are_two():
    boxes = [[0, 0, 32, 32], [0, 0, 32, 16]]
    found = statistics(boxes, [[1.0, 0.0], [0.9, 0.0]], size=64)
    assert found["above_0.5"] == pytest.approx(2, abs=1e-3)
    different = statistics(boxes, [[1.0, 0.0], [0.0, 0.9]], size=64)
    assert different["overlap_of_classes"] == 0


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


def plainly(boxes: np.ndarray, scores: np.ndarray, size: int) -> list[float]:
    """The nine statistics of an image, written down again in loops."""
    best, labels = scores.max(1), scores.argmax(1)
    rows = np.argsort(-best, kind="stable")[:100]
    overlaps = numpy_iou(boxes, boxes)
    kept: list[int] = []
    for place, row in enumerate(rows):
        surer = [r for r in rows[:place] if labels[r] == labels[row]]
        if all(overlaps[row, r] <= 0.5 for r in surer):
            kept.append(row)
    found = dict.fromkeys(DetectionStatistics.names, 0.0)
    for row in kept:
        s = best[row]
        found["above_0.1"] += 1 / (1 + np.exp(-(s - 0.1) / 0.03))
        found["above_0.5"] += 1 / (1 + np.exp(-(s - 0.5) / 0.05))
        if s > 0.1:
            width, height = np.clip((boxes[row, 2:] - boxes[row, :2]) / size, 0, 1)
            side = np.sqrt(max(width * height, 1e-8))
            beyond = [1 / (1 + np.exp(-(side - limit) / 0.05)) for limit in (0.2, 0.5)]
            unsure = s * (1 - s)
            found["unsure_small"] += unsure * (1 - beyond[0])
            found["unsure_medium"] += unsure * beyond[0] * (1 - beyond[1])
            found["unsure_large"] += unsure * beyond[1]
            found["second_class"] += np.sort(scores[row])[-2]
        for other in kept:
            if labels[other] != labels[row] and overlaps[row, other] > 0.5:
                found["overlap_of_classes"] += overlaps[row, other] * s * best[other]
    surest = scores.max(0)
    found["unsure_classes"] = float((surest * (1 - surest)).sum())
    five = sorted((best[row] for row in kept), reverse=True)[:5]
    found["mean_of_best"] = sum(five) / min(5, len(rows))
    return list(found.values())


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.sampled_from([1, 3, 40, 120]), dim=st.booleans())
def test_the_statistics_are_those_of_a_plain_loop(seed: int, count: int, dim: bool):
    boxes, scores = map(np.array, random_detections(seed, count))
    boxes[: count // 2] = boxes[0] + np.linspace(0, 12, count // 2)[:, None]  # on one thing
    scores = np.float32(scores**6 if dim else scores).astype(np.float64)
    module = DetectionStatistics(SIZE, SIZE, count)
    values = module(torch.tensor(boxes[None]), torch.tensor(scores[None]))[0].expm1()
    np.testing.assert_allclose(values, plainly(boxes, scores, SIZE), rtol=1e-4, atol=1e-4)


def test_sides_are_shares_of_width_and_height() -> None:
    """Of 200 x 50 pixels, a box of 20 x 5 has a tenth of either side."""
    wide = DetectionStatistics(50, 200, 1)
    scores = torch.tensor([[[0.5, 0.25]]])
    found = wide(torch.tensor([[[10.0, 5, 30, 10]]]), scores)
    square = DetectionStatistics(100, 100, 1)(torch.tensor([[[10.0, 5, 20, 15]]]), scores)
    torch.testing.assert_close(found, square)


def test_a_fitted_router_is_the_sigmoid_of_what_is_not_gained() -> None:
    reader = Reader(PooledFeatures(["a", "b"]), ())
    gain = LinearGain(np.array([2.0, -1.0]), 0.5)
    assert gain([[3.0, 4.0], [0, 0]]).tolist() == [2.5, 0.5]
    router = FittedRouter(reader, np.array([100.0, 50.0]), gain)
    values = torch.tensor([[100.0, 200.0], [1.0, 0.0], [0.0, 3.0]])
    expected = 1 / (1 + np.exp(gain(values)))
    np.testing.assert_allclose(router(values)[:, 0], expected, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in router.parameters())


def test_the_hand_rule_reads_the_largest_score_of_a_body_that_has_scores(tmp_path) -> None:
    static = Bundle.open(support.write_static(tmp_path / "one.dyn")).manifest
    found = confidence_reader(static, 0)
    assert found is not None
    assert [spec.name for spec in found.inputs] == ["class_scores"]
    scores = torch.tensor([[[0.1, 0.7], [0.3, 0.2]], [[0.0, 0.0], [0.4, 0.0]]])
    np.testing.assert_allclose(found.features(scores), [[0.7], [0.4]])
    two = Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).manifest
    assert confidence_reader(two, 0) is None
