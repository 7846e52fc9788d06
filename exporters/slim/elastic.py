"""The elastic teacher: one super-network, whose sub-networks teach students.

As in Joint-DetNAS (Yao et al., CVPR 2021), teachers are sub-networks of one that progressive
shrinking has trained. Which sub-networks, the schedule and the losses there were not to be found:
these are ours, in the manner of "Once-for-All" (Cai et al., ICLR 2020, section 3): first all of it,
then shallower, then narrower too, each taught by the network that it began as.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from dyninfer.exporters.slim.assignment import Places
from dyninfer.exporters.slim.learning import RATE, Budget, Learner, learn
from dyninfer.exporters.slim.loss import Made, detection_loss, distillation_loss
from dyninfer.exporters.slim.pictures import Batch
from dyninfer.exporters.zendet.detector import Detector, HeadShape
from dyninfer.exporters.zendet.morphism import ZenDetStudent

POOL = 4
"""Teachers that are kept: all of the super-network, and sub-networks that are drawn."""
_WHOLE = 0.25  # of the steps train all of it, after the first part of the schedule
_DEEP, _WIDE = 0.1, 0.45  # shares of the schedule, until which depths, and widths, stay whole
_SHARES = (1.0, 0.75, 0.5)  # of bottlenecks' widths
_STATISTICS = 4  # batches that a sub-network's norms are measured on
_RATE = RATE / 2  # it has learned already


def train_elastic(
    base: ZenDetStudent,
    batches: Iterator[Batch],
    budget: Budget,
    rng: random.Random,
    on_step: Callable[[float], None] = lambda _: None,
) -> ZenDetStudent:
    """The base, trained so that its sub-networks are good, too."""
    teacher, whole = Learner(detector_of(base)), detector_of(base).requires_grad_(True)
    shape = whole.bbox_head.shape
    names = dict(whole.named_parameters())

    def loss_of(batch: Batch) -> Tensor:
        state = {**names, **dict(whole.named_buffers())}
        sub = drawn(ZenDetStudent(state, base.strides), budget.progress, rng)
        places = Places.of((batch.images.shape[2], batch.images.shape[3]))
        with torch.no_grad():
            told = teacher(batch.images)
        made = _run(sub, shape, batch.images)
        return detection_loss(made, batch.objects, places) + distillation_loss(made, told)

    learn(names, loss_of, batches, budget, on_step, _RATE)
    return base.trained(whole)


def drawn(whole: ZenDetStudent, progress: float, rng: random.Random) -> ZenDetStudent:
    """A sub-network as the schedule has it at ``progress``, from 0 to 1.

    Each stage keeps at least half of its bottlenecks, the first ones, and of their widths the most
    important channels.
    """
    if progress < _DEEP or rng.random() < _WHOLE:
        return whole
    sub = whole
    for name, depth in whole.stages.items():
        for index in reversed(range(rng.randint(-(-depth // 2), depth), depth)):
            sub = sub.drop(name, index)
        width = f"{name}.btn"
        if progress >= _WIDE and width in sub.widths:
            count = max(8, round(sub.widths[width] * rng.choice(_SHARES) / 8) * 8)
            if count < sub.widths[width]:
                sub = sub.thin(width, sub.most_important(width, count))
    return sub


def teacher_pool(
    whole: ZenDetStudent, batches: Iterator[Batch], rng: random.Random
) -> list[Detector]:
    """All of a super-network and some sub-networks, with statistics of norms of their own."""
    return [measured(student, batches) for student in _pool(whole, rng)]


def _pool(whole: ZenDetStudent, rng: random.Random) -> Iterator[ZenDetStudent]:
    yield whole
    for _ in range(POOL - 1):
        yield drawn(whole, 1.0, rng)


def measured(student: ZenDetStudent, batches: Iterator[Batch]) -> Detector:
    """A detector whose batch norms have the statistics of some batches."""
    detector = detector_of(student)
    update_bn((each.images for each in islice(batches, _STATISTICS)), Learner(detector))
    return detector.eval()


@torch.no_grad()
def best_teacher(pool: list[Detector], student: Detector, batch: Batch) -> Detector:
    """The one that suits a student: right by the labels, and near to it. The criterion is ours."""
    places = Places.of((batch.images.shape[2], batch.images.shape[3]))
    made = Learner(student.eval())(batch.images)

    def unsuited(teacher: Detector) -> float:
        told = Learner(teacher)(batch.images)
        wrong = detection_loss(told, batch.objects, places)
        return float(wrong + distillation_loss(made, told))

    return min(pool, key=unsuited)


def detector_of(student: ZenDetStudent) -> Detector:
    """A student as a detector of its own, whose training changes no other's weights."""
    model = copy.deepcopy(student.model())
    assert isinstance(model, Detector)  # backbones alone were refused
    return model


def _run(sub: ZenDetStudent, shape: HeadShape, images: Tensor) -> Made:
    """A sub-network of weights that are parts of the super-network's, so that these learn."""
    with torch.device("meta"):
        model = Learner(Detector(sub.structure, shape)).train()
    state = {f"detector.{name}": tensor for name, tensor in sub.state.items()}
    made: Made = functional_call(model, state, images)
    return made
