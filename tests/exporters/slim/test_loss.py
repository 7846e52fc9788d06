"""Values worked out by hand from the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dyninfer.exporters.slim.assignment import Places, assign
from dyninfer.exporters.slim.loss import (
    Made,
    Objects,
    detection_loss,
    distillation_loss,
    distribution_focal,
    giou,
    quality_focal,
)

PLACES = Places.of((64, 64))
BINS = 5


@pytest.mark.parametrize(
    ("score", "quality", "expected"),
    [
        (0.3, 0.8, 0.2586283),  # 0.5^2 (-0.8 ln 0.3 - 0.2 ln 0.7)
        (0.8, 0.8, 0.0),
        (0.3, 0.0, 0.0321007),  # 0.3^2 (-ln 0.7)
        (1.0, 1.0, 0.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_quality_focal(score: float, quality: float, expected: float) -> None:
    found = quality_focal(torch.tensor(score), torch.tensor(quality))
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("shares", "distance", "expected"),
    [
        ((0.1, 0.2, 0.7), 0.25, 2.1292984),  # -0.75 ln 0.1 - 0.25 ln 0.2
        ((0.1, 0.2, 0.7), 1.0, -math.log(0.2)),
        ((0.1, 0.2, 0.7), 2.0, -math.log(0.7)),
        ((0.1, 0.2, 0.7), 9.0, -math.log(0.7)),  # more than the bins can say
        ((0.1, 0.2, 0.7), -1.0, -math.log(0.1)),
    ],
)
def test_distribution_focal(shares: tuple[float, ...], distance: float, expected: float) -> None:
    found = distribution_focal(torch.tensor(shares).log(), torch.tensor(distance))
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("boxes", "others", "expected"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7 - 2 / 9),
        ((0, 0, 1, 1), (2, 0, 3, 1), -1 / 3),
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
    ],
)
def test_giou(boxes: tuple[int, ...], others: tuple[int, ...], expected: float) -> None:
    pair = (torch.tensor(each, dtype=torch.float32) for each in (boxes, others))
    assert giou(*pair).item() == pytest.approx(expected, abs=1e-6)


def perfect(objects: Objects, classes: int) -> Made:
    """What a detector makes that has learned all there is."""
    assigned = assign(PLACES, objects.boxes)
    scores = torch.zeros(1, len(assigned), classes)
    logits = torch.zeros(1, len(assigned), 4, BINS)
    for place in (assigned >= 0).nonzero()[:, 0].tolist():
        chosen = assigned[place]
        scores[0, place, objects.class_ids[chosen]] = 1.0
        centre, box = PLACES.centres[place], objects.boxes[chosen]
        sides = torch.cat([centre - box[:2], box[2:] - centre]) / PLACES.strides[place]
        assert torch.equal(sides, sides.round())
        logits[0, place, range(4), sides.long()] = 50.0
    return Made(scores, logits)


def test_a_perfect_detector_has_nothing_to_learn() -> None:
    objects = Objects(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([1]))
    made = perfect(objects, 3)
    assert detection_loss(made, [objects], PLACES).item() == pytest.approx(0, abs=1e-5)
    other = Objects(objects.boxes, torch.tensor([2]))
    assert detection_loss(made, [other], PLACES).item() > 1
    moved = Objects(objects.boxes + torch.tensor([0, 0, 8, 0]), objects.class_ids)
    assert detection_loss(made, [moved], PLACES).item() > 0.5


def test_images_without_objects_teach_that_nothing_is_there() -> None:
    none = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    places = len(PLACES.centres)
    made = Made(torch.full((2, places, 3), 0.3), torch.zeros(2, places, 4, BINS))
    loss = detection_loss(made, [none, none], PLACES)
    assert loss.item() == pytest.approx(2 * places * 3 * 0.0321007, rel=1e-5)


def test_a_batch_mixes_images_with_and_without_objects() -> None:
    objects = Objects(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([1]))
    none = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    made = perfect(objects, 3)
    nothing = Made(torch.zeros_like(made.scores), made.logits)
    both = Made(*(torch.cat(p) for p in zip(_parts(nothing), _parts(made), strict=True)))
    assert detection_loss(both, [none, objects], PLACES).item() == pytest.approx(0, abs=1e-5)
    assert detection_loss(both, [objects, none], PLACES).item() > 1


def _parts(made: Made) -> tuple[Tensor, Tensor]:
    return made.scores, made.logits


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = Made(
        torch.rand(2, 7, 3, generator=generator), torch.randn(2, 7, 4, BINS, generator=generator)
    )
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    worse = Made(teacher.scores * 0.5, teacher.logits)
    blurred = Made(teacher.scores, teacher.logits * 0.5)
    assert distillation_loss(worse, teacher).item() > 0.01
    assert distillation_loss(blurred, teacher).item() > 0.01
