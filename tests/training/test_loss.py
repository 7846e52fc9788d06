import math

import pytest

torch = pytest.importorskip("torch")

from training.loss import LossWeights, Targets, ciou, detection_loss, match  # noqa: E402

ANCHORS_PX = torch.tensor([[8.0, 8.0], [16.0, 16.0], [64.0, 64.0]])
ANCHOR_GRID = torch.tensor([[8.0, 8.0]]).reshape(1, 1, 1, 1, 1, 2)
CLASSES = 2
SURE = 12.0  # a logit


def targets(*rows):
    """Rows of image, class, cx, cy, w, h."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Targets(table[:, 0].long(), table[:, 1].long(), table[:, 2:])


def cells(found):
    return sorted(zip(found.row.tolist(), found.column.tolist(), strict=True))


def test_match_without_objects_is_empty():
    found = match(targets(), ANCHORS_PX, stride=8, height=4, width=4)
    assert len(found.target) == 0


def test_match_takes_the_cell_and_its_two_nearest_neighbours():
    # centre (18, 13) lies in column 2 towards 1, row 1 towards 2
    found = match(targets((0, 0, 18, 13, 8, 8)), ANCHORS_PX[:1], stride=8, height=4, width=4)
    assert cells(found) == [(1, 1), (1, 2), (2, 2)]


def test_match_stays_inside_the_image():
    found = match(targets((0, 0, 1, 1, 8, 8)), ANCHORS_PX[:1], stride=8, height=4, width=4)
    assert cells(found) == [(0, 0)]


@pytest.mark.parametrize(
    ("side", "matches"), [(31.9, True), (32.0, False), (2.1, True), (2, False)]
)
def test_match_needs_both_sides_within_a_factor_of_four(side, matches):
    for width, height in ((side, 8), (8, side)):
        found = match(
            targets((0, 0, 12, 12, width, height)), ANCHORS_PX[:1], stride=8, height=4, width=4
        )
        assert bool(len(found.target)) is matches


def test_match_of_several_images_and_anchors():
    found = match(
        targets((0, 0, 12, 12, 12, 12), (1, 1, 12, 12, 60, 60)), ANCHORS_PX, 8, height=4, width=4
    )
    pairs = set(zip(found.image.tolist(), found.anchor.tolist(), strict=True))
    assert pairs == {(0, 0), (0, 1), (1, 1), (1, 2)}
    assert torch.equal(found.image, found.target)  # here object number and image number agree


def test_ciou_without_boxes():
    assert ciou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_ciou_of_equal_boxes_is_one():
    box = torch.tensor([[10.0, 10.0, 4.0, 6.0]])
    assert ciou(box, box).item() == pytest.approx(1, abs=1e-5)


def test_ciou_by_hand():
    # IoU 2 / 6; centres 2 apart, enclosing diagonal sqrt(6^2 + 1); equal shapes
    box, other = torch.tensor([[2.0, 0.5, 4.0, 1.0]]), torch.tensor([[4.0, 0.5, 4.0, 1.0]])
    assert ciou(box, other).item() == pytest.approx(2 / 6 - 4 / 37, abs=1e-5)


def test_ciou_of_disjoint_boxes_is_negative_and_of_other_shape_by_hand():
    box, other = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[10.0, 0.0, 4.0, 2.0]])
    # no overlap: -d^2/c^2 - alpha v, c from -1 to 12 and -1 to 1
    shape = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    expected = -100 / (13**2 + 2**2) - shape**2 / (1 + shape)
    assert ciou(box, other).item() == pytest.approx(expected, abs=1e-5)


def raw_level(height=4, width=4, images=1):
    raw = torch.zeros(images, 5 + CLASSES, height, width)
    raw[:, 4] = -SURE
    return raw


def perfect_level():
    """Finds the 8 x 8 object of class 1 centred in cell (1, 1) of a stride-8 level."""
    raw = raw_level()
    raw[0, 4, 1, 1] = SURE
    raw[0, 5:, 1, 1] = torch.tensor([-SURE, SURE])
    return raw


def loss_of(raw, objects, weights=LossWeights()):  # noqa: B008 (frozen)
    return detection_loss([raw], objects, ANCHOR_GRID, [8], weights)


def test_loss_without_objects_is_that_of_objectness_alone():
    assert loss_of(raw_level(), targets()).item() == pytest.approx(0, abs=1e-4)
    unsure = loss_of(torch.zeros(1, 5 + CLASSES, 4, 4), targets())
    assert unsure.item() == pytest.approx(0.25 * 4.0 * math.log(2), rel=1e-5)


def test_loss_is_small_for_a_good_and_larger_for_a_bad_prediction():
    corner = targets((0, 1, 12, 12, 8, 8))
    only_cell = LossWeights(box=0, classes=1, objectness=0)
    good, missed = loss_of(perfect_level(), corner), loss_of(raw_level(), corner)
    assert good < missed
    wrong = perfect_level()
    wrong[0, 5:, 1, 1] = torch.tensor([SURE, -SURE])
    assert loss_of(wrong, corner, only_cell) > loss_of(perfect_level(), corner, only_cell) + 1


def test_loss_of_a_batch_of_equal_images_is_that_of_one():
    single = targets((0, 1, 12, 12, 8, 8))
    double = targets((0, 1, 12, 12, 8, 8), (1, 1, 12, 12, 8, 8))
    raw = perfect_level()
    assert loss_of(torch.cat([raw, raw]), double).item() == pytest.approx(
        loss_of(raw, single).item(), rel=1e-5
    )
    assert torch.equal(double.of_image(1).boxes_cxcywh, single.boxes_cxcywh)


def test_gradient_descent_finds_the_object():
    objects = targets((0, 1, 14, 11, 10, 7))
    raw = raw_level().mul_(0.1).requires_grad_(True)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    losses = []
    for _ in range(60):
        loss = loss_of(raw, objects)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    assert raw[0, 6, 1, 1] > raw[0, 5, 1, 1]


def test_two_objects_in_one_prediction_ask_for_the_better_overlap():
    raw = perfect_level()
    best_alone = targets((0, 1, 12, 12, 8, 8))
    both = targets((0, 1, 12, 12, 8, 8), (0, 1, 12, 12, 12, 12))
    objectness_only = LossWeights(box=0, classes=0)
    assert loss_of(raw, both, objectness_only).item() == pytest.approx(
        loss_of(raw, best_alone, objectness_only).item(), rel=0.2
    )
