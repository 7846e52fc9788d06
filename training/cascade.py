"""Step 1: both backbones and both heads, trained together on the sum of the heads' losses."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor, distributed

from dyninfer.demo.scenes import SceneSource
from dyninfer.exporters.dynamicdet.layers import Detect
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from dyninfer.exporters.dynamicdet.topology import Part
from dyninfer.exporters.safe_load import load_checkpoint
from training import recipe
from training.batches import Batch, batches
from training.flat import flatten, gradient
from training.loss import LossWeights, Targets, detection_loss
from training.recipe import Recipe


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``steps``, or after ``seconds`` where ``steps`` is None."""

    seconds: float = math.inf
    steps: int | None = None


@dataclass(frozen=True)
class Start:
    """Where to start: from random weights of ``seed``, or from a checkpoint's.

    ``first_scene`` is the number of the first training scene.
    """

    seed: int = 0
    weights: Path | None = None
    first_scene: int = 0

    def model(self) -> DynamicDetector:
        """The model to start from."""
        model = recipe.build(self.seed)
        if self.weights:
            model.load_state_dict(load_checkpoint(self.weights)["model"])
        return model


@dataclass(frozen=True)
class Report:
    """What process 0 tells at intervals; losses are the means since the last report.

    ``progress`` is the share of the budget that is used up, ``seconds`` those since the start.
    """

    step: int
    progress: float
    first_loss: float
    second_loss: float
    seconds: float


Listener = Callable[[Report, DynamicDetector], None]


def head_losses(
    model: DynamicDetector, batch: Batch, settings: Recipe, half: bool
) -> tuple[Tensor, Tensor]:
    """Losses of the first and the second head; ``half`` computes features in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        features = model.first(batch.images)
        outputs = {Part.HEAD: model.head(features), Part.HEAD2: model.second(features)}
    first, second = (
        detection_loss(
            [level.float() for level in levels],
            batch.targets,
            anchor_grid(model, part),
            model.plan.strides,
            settings.loss,
        )
        for part, levels in outputs.items()
    )
    return first, second


def anchor_grid(model: DynamicDetector, part: Part) -> Tensor:
    """Pixel anchors (levels, 1, anchors, 1, 1, 2) of a head."""
    detect = model.detect(part)
    assert isinstance(detect, Detect)
    return detect.anchor_grid


def losses_of_images(
    model: DynamicDetector,
    part: Part,
    levels: Sequence[Tensor],
    targets: Targets,
    weights: LossWeights,
) -> Tensor:
    """Loss (N,) of a head for every image of a batch on its own."""
    losses = [
        detection_loss(
            [level[image : image + 1] for level in levels],
            targets.of_image(image),
            anchor_grid(model, part),
            model.plan.strides,
            weights,
        )
        for image in range(len(levels[0]))
    ]
    return torch.stack(losses)


def learning_rate(progress: float, settings: Recipe) -> float:
    """Linear warm-up, then half a cosine down to the final rate; ``progress`` in [0, 1]."""
    if progress < settings.warm_up:
        return settings.learning_rate * max(progress / settings.warm_up, 1e-3)
    rest = (progress - settings.warm_up) / (1 - settings.warm_up)
    falling = (1 + math.cos(math.pi * min(rest, 1))) / 2
    return settings.learning_rate * (settings.final_rate + (1 - settings.final_rate) * falling)


def train(
    settings: Recipe, budget: Budget, processes: int, start: Start, listener: Listener
) -> DynamicDetector:
    """Train in this and ``processes - 1`` other processes.

    Narrow layers keep one core busy but not two threads of one process, so every core gets a
    process of its own, and gradients are averaged. ``listener`` is told of the progress.

    Returns:
        The averaged weights, in evaluation mode.
    """
    with tempfile.TemporaryDirectory() as folder:
        shared = (f"file://{Path(folder) / 'rendezvous'}", processes, settings, budget, start)
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit PyTorch's threads
        others = [
            spawn.Process(target=_worker, args=(rank, *shared, None), daemon=True)
            for rank in range(1, processes)
        ]
        for other in others:
            other.start()
        model = _worker(0, *shared, listener)
        for other in others:
            other.join()
    return model


def _worker(
    rank: int,
    rendezvous: str,
    processes: int,
    settings: Recipe,
    budget: Budget,
    start: Start,
    listener: Listener | None,
) -> DynamicDetector:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)  # scenes are small, and the cores are busy
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
    try:
        model = start.model().train()
        shift = start.first_scene + rank * settings.batch
        return _Trainer(model, settings, budget, shift, processes, listener).run()
    finally:
        distributed.destroy_process_group()


class _Trainer:
    """The loop of one process; all processes hold equal weights after every step."""

    def __init__(
        self,
        model: DynamicDetector,
        settings: Recipe,
        budget: Budget,
        first_scene: int,
        processes: int,
        listener: Listener | None,
    ) -> None:
        self.model, self.settings, self.budget, self.listener = model, settings, budget, listener
        self.processes = processes
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        named = [item for item in model.named_parameters() if not item[0].startswith("router.")]
        kernels = [p for name, p in named if p.ndim == 4 and name.endswith("weight")]
        others = [p for name, p in named if not (p.ndim == 4 and name.endswith("weight"))]
        self.flat = [flatten(kernels), flatten(others)]
        names = [name for name, t in model.state_dict().items() if t.is_floating_point()]
        self.averaged = [self.average.state_dict()[name] for name in names]
        self.current = [model.state_dict()[name] for name in names]  # views, also after a step
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.flat[0]], "weight_decay": settings.weight_decay},
                {"params": [self.flat[1]], "weight_decay": 0.0},
            ],
            fused=True,
        )
        self.batches = batches(
            SceneSource("train", settings.size, crowded=True),
            settings.batch,
            start=first_scene,
            skip=(processes - 1) * settings.batch,
        )

    def run(self, report_every: int = 50) -> DynamicDetector:
        """Train until the budget is used up."""
        start, step, progress = time.monotonic(), 0, 0.0
        sums = torch.zeros(2)
        while progress < 1:
            sums += self._step(progress)
            step += 1
            if self.listener:  # rank 0 alone keeps the average
                self._update_average(step)
            seconds = time.monotonic() - start
            progress = self._agreed_progress(step, seconds)
            if self.listener and (step % report_every == 0 or progress >= 1):
                first, second = (sums / (step % report_every or report_every)).tolist()
                self.listener(Report(step, progress, first, second, seconds), self.average)
            if step % report_every == 0:
                sums.zero_()
        return self.average

    def _agreed_progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used up, as rank 0 sees it."""
        used = step / self.budget.steps if self.budget.steps else seconds / self.budget.seconds
        told = torch.tensor(used)
        distributed.broadcast(told, 0)
        return float(told)

    def _step(self, progress: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress, self.settings)
        first, second = head_losses(self.model, next(self.batches), self.settings, half=True)
        for flat in self.flat:
            gradient(flat).zero_()
        (first + second).backward()  # type: ignore[no-untyped-call]  # untyped torch
        for flat in self.flat:
            distributed.all_reduce(gradient(flat))
            gradient(flat).div_(self.processes)
        torch.nn.utils.clip_grad_norm_(self.flat, self.settings.clip_norm)
        self.optimizer.step()
        return torch.stack([first.detach(), second.detach()])

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Exponential moving average, short at first, of weights and of batch-norm statistics."""
        decay = self.settings.ema_decay * (1 - math.exp(-step / 300))
        torch._foreach_lerp_(self.averaged, self.current, 1 - decay)
