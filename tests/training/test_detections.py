import pytest

torch = pytest.importorskip("torch")

from training.detections import decode, detections  # noqa: E402

GRID = torch.tensor([[[8.0, 4.0]], [[16.0, 16.0]]]).reshape(2, 1, 1, 1, 1, 2)
STRIDES = (8, 16)
SURE = 12.0


def levels(images=1):
    """Two levels of two classes that see nothing."""
    raws = [torch.zeros(images, 7, 4, 4), torch.zeros(images, 7, 2, 2)]
    for raw in raws:
        raw[:, 4] = -SURE
    return raws


def test_nothing_is_found_where_objectness_is_low():
    (found,) = detections(levels(), GRID, STRIDES)
    assert found.boxes_xyxy.shape == (0, 4)


def test_decode_by_hand():
    boxes, scores = decode(levels(2), GRID, STRIDES)
    assert boxes.shape == (2, 20, 4)
    assert scores.shape == (2, 20, 2)
    # logits of zero: the cell's centre and the anchor's size
    assert boxes[1, 0].tolist() == [0, 2, 8, 6]
    assert boxes[0, 4 * 1 + 2].tolist() == [16, 10, 24, 14]
    assert boxes[0, 16 + 3].tolist() == [16, 16, 32, 32]


def test_detections_come_surest_first():
    raws = levels()
    for column, objectness in ((0, 1.0), (3, 3.0)):
        raws[0][0, 4, 1, column] = objectness
        raws[0][0, 5:, 1, column] = torch.tensor([SURE, -SURE])
    (found,) = detections(raws, GRID, STRIDES)
    assert found.class_ids.tolist() == [0, 0]
    assert found.boxes_xyxy[:, 0].tolist() == [24, 0]
    expected = torch.tensor([3.0, 1.0]).sigmoid().tolist()
    assert found.confidences.tolist() == pytest.approx(expected, abs=1e-4)


def test_equal_boxes_are_suppressed_within_a_class_only():
    raws = [torch.cat([level, level], 1) for level in levels()]  # two equal anchors
    grid = GRID.repeat(1, 1, 2, 1, 1, 1)
    for raw in raws[:1]:
        for anchor in (0, 7):
            raw[0, anchor + 4, 2, 2] = SURE - anchor / 7
            raw[0, anchor + 5, 2, 2] = SURE
            raw[0, anchor + 6, 2, 2] = -SURE
    (found,) = detections(raws, grid, STRIDES)
    assert found.class_ids.tolist() == [0]
    raws[0][0, 7 + 5, 2, 2], raws[0][0, 7 + 6, 2, 2] = -SURE, SURE
    (found,) = detections(raws, grid, STRIDES)
    assert sorted(found.class_ids.tolist()) == [0, 1]
