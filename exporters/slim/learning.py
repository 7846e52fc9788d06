"""Detectors that learn: from labels, and from a teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dyninfer.exporters.slim.assignment import Places
from dyninfer.exporters.slim.loss import Made, detection_loss, distillation_loss
from dyninfer.exporters.slim.pictures import Batch
from dyninfer.exporters.zendet.detector import LATERALS, Detector
from dyninfer.hardware import cpu_field, read_cpuinfo
from dyninfer.search.structure import STRIDE

_MULTIPLIES_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})  # as Linux calls what x86 can do
BATCH = 16
RATE = 1.5e-3
"""Highest learning rate."""
_WEIGHT_DECAY = 0.02  # of convolutions' kernels
_WARM_UP, _FINAL = 0.05, 0.02  # share of the steps until the rate peaks, and of the rate at the end
_LONGEST = 5.0  # gradient of a step


@dataclass
class Budget:
    """Steps, or seconds from when it is made: what comes first."""

    steps: int | None = None
    seconds: float = math.inf
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """How much is used up, from 0 to 1."""
        by_time = (time.monotonic() - self.began) / self.seconds
        by_steps = 0.0 if self.steps is None else self.done / max(self.steps, 1)
        return min(1.0, max(by_time, by_steps))


class Learner(nn.Module):
    """Images -> :class:`dyninfer.exporters.slim.loss.Made`.

    The backbone runs in bfloat16 where the processor multiplies it, which halves a step; but no
    map of one place does, as in the neck: of their convolutions oneDNN's gradients are not finite.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        flags = cpu_field(read_cpuinfo(), "flags").split()
        self.narrows = not _MULTIPLIES_BFLOAT16.isdisjoint(flags)

    def forward(self, images: Tensor) -> Made:
        """Run it as it is trained, before distances are decoded."""
        narrow = self.narrows and min(images.shape[2:]) > STRIDE
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            maps = self.detector.backbone["body"](images)
        levels = self.detector.neck(tuple(each.float() for each in maps[-LATERALS:]))
        return Made(*self.detector.bbox_head.distributions(levels))


def learn(
    parameters: dict[str, nn.Parameter],
    loss_of: Callable[[Batch], Tensor],
    batches: Iterator[Batch],
    budget: Budget,
    on_step: Callable[[float], None] = lambda _: None,
    rate: float = RATE,
) -> None:
    """Change parameters, by name, until the budget is used up; ``on_step`` is told of each loss.

    AdamW, a linear warm-up, then half a cosine.
    """
    kernels = [each for each in parameters.values() if each.ndim == 4]
    others = [each for each in parameters.values() if each.ndim != 4]
    optimizer = torch.optim.AdamW(
        [
            {"params": kernels, "weight_decay": _WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
    )
    while budget.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * _factor(budget.progress)
        loss = loss_of(next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped torch
        nn.utils.clip_grad_norm_(parameters.values(), _LONGEST)
        optimizer.step()
        budget.done += 1
        on_step(loss.item())


def teach(
    detector: Detector,
    teacher: Detector | None,
    batches: Iterator[Batch],
    budget: Budget,
    on_step: Callable[[float], None] = lambda _: None,
    rate: float = RATE,
) -> None:
    """Let a detector learn from labels, and from a teacher where there is one."""
    learner = Learner(detector.train().requires_grad_(True))
    wise = None if teacher is None else Learner(teacher.eval())

    def loss_of(batch: Batch) -> Tensor:
        places = Places.of((batch.images.shape[2], batch.images.shape[3]))
        made = learner(batch.images)
        loss = detection_loss(made, batch.objects, places)
        if wise is not None:
            with torch.no_grad():
                told = wise(batch.images)
            loss = loss + distillation_loss(made, told)
        return loss

    learn(dict(detector.named_parameters()), loss_of, batches, budget, on_step, rate)
    detector.eval().requires_grad_(False)


def _factor(progress: float) -> float:
    """Of the highest rate."""
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 1e-3)
    falling = (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2
    return _FINAL + (1 - _FINAL) * falling
