"""Small students of both families, with uneven widths and random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from dyninfer.exporters.efficientdet.morphism import EfficientDetStudent
from dyninfer.exporters.faster_rcnn.morphism import FasterRCNNStudent
from dyninfer.exporters.faster_rcnn.names import Library, by_own_names
from dyninfer.exporters.morphism.student import Student
from dyninfer.exporters.zendet.backbone import Backbone, random_backbone
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.structure import Block, checked, read_structure
from tests.exporters.efficientdet import narrow as narrow_efficientdet
from tests.exporters.faster_rcnn import narrow
from tests.exporters.zendet import reference

StudentT = TypeVar("StudentT", bound=Student)
IMAGES = torch.randn(1, 3, *narrow.SIZE, generator=torch.Generator().manual_seed(3))
MIDDLE = checked(
    [
        Block(3, 8, 3, 2),
        Block(8, 16, 3, 2, 2, 8),
        Block(16, 24, 5, 2, 2, 8),
        Block(24, 32, 3, 2, 1, 16),
        Block(32, 40, 5, 1, 3, 12),
        Block(40, 48, 3, 2, 2, 16, groups=2),
    ]
)
"""With a super block of stride 1 in the middle, and one of convolutions in groups."""


@cache
def faster_rcnn() -> FasterRCNNStudent:
    state = by_own_names(narrow.mmdetection(), Library.MMDETECTION)
    return FasterRCNNStudent(state, Library.MMDETECTION, {})


@cache
def detector() -> ZenDetStudent:
    strides = [block.stride for block in read_structure(reference.STRUCTURE).blocks]
    return ZenDetStudent(reference.detector_state(columns=4, channels=64), tuple(strides))


@cache
def backbone() -> ZenDetStudent:
    return ZenDetStudent.of(restless(random_backbone(MIDDLE, 5)))


@cache
def efficientdet() -> EfficientDetStudent:
    model = narrow_efficientdet.random_model(narrow_efficientdet.narrow())
    return EfficientDetStudent(model.state_dict())


STUDENTS = {
    "efficientdet": efficientdet,
    "faster-rcnn": faster_rcnn,
    "gflv2": detector,
    "backbone": backbone,
}


def restless(model: Backbone) -> Backbone:
    """With norms that are no identities, as after a training."""
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.state_dict().items():
        if ".bn1." in name and tensor.dim():
            drawn = torch.rand(tensor.shape, generator=generator)
            spread = 0.3 if "running_mean" in name or name.endswith("bias") else 0.5
            tensor.mul_(1 - spread / 2).add_(spread * (drawn - 0.2))
    return model


def answers(student: Student) -> list[Tensor]:
    """What a detector's convolutions make, before boxes; of a backbone, its maps.

    In float64: of the few values that a group norm has in a coarse map, rounding would show.
    """
    model, images = student.model().double(), IMAGES.double()
    with torch.inference_mode():
        if isinstance(student, FasterRCNNStudent):
            levels = model.neck(model.backbone(images))
            return [*levels, *(each for level in model.rpn_head(levels) for each in level)]
        if isinstance(student, EfficientDetStudent):
            return [*model(images.repeat(1, 1, 2, 2)[..., :128])]
        found = model(images)
        return [
            each for level in found for each in (level if isinstance(level, tuple) else [level])
        ]


def parameters(student: Student) -> int:
    return sum(each.numel() for each in student.model().parameters())


def drawn(student: Student, width: str, count: int) -> dict[str, list[int]]:
    """Some channels of every part, in no order."""
    generator = torch.Generator().manual_seed(count)
    return {
        part: torch.randperm(student.widths[width], generator=generator)[:count].tolist()
        for part in student.parts(width)
    }


def masked(student: StudentT, width: str, keep: Mapping[str, Sequence[int]]) -> StudentT:
    """The channels that are not kept are switched off where they are made."""
    state = dict(student.state)
    for part, channels in student.parts(width).items():
        dropped = set(range(channels.width(state))) - set(keep[part])
        state |= channels.silenced(state, sorted(dropped))
    return replace(student, state=state)


def assert_close(
    found: list[Tensor], expected: list[Tensor], kept: Sequence[int] | None = None
) -> None:
    """A backbone's map has the channels of ``kept`` alone where its own were chosen."""
    for one, other in zip(found, expected, strict=True):
        chosen = other if one.shape == other.shape or kept is None else other[:, list(kept)]
        torch.testing.assert_close(one, chosen, rtol=1e-5, atol=1e-5)
