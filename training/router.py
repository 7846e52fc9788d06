"""Step 2: the router alone, on the frozen detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dyninfer.demo.scenes import SceneSource
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from dyninfer.exporters.dynamicdet.topology import Part
from training.batches import batches
from training.cascade import losses_of_images
from training.recipe import Recipe

# scenes of step 1 are numbered from 0; these start where it never gets
FIRST_SCENE = 10_000_000


@dataclass(frozen=True)
class Evidence:
    """What the router learns from: of every scene, what it reads and both heads' losses.

    Attributes:
        pooled: (N, router channels) averages of the first backbone's features.
        first: (N,) loss through the first head, summed over the scene's objects and divided by
            the mean number of objects of a scene.
        second: (N,) the same through the second head.
    """

    pooled: Tensor
    first: Tensor
    second: Tensor


@torch.no_grad()
def gather(
    model: DynamicDetector, settings: Recipe, tick: Callable[[int], None] = lambda _: None
) -> Evidence:
    """Run the frozen detector once: its features and losses do not change while the router learns.

    The loss of a scene is a mean over its objects, while average precision counts objects:
    multiplied by their number, a scene weighs as much here as there. It is also divided by the mean
    number over all scenes, so that the scale stays that of the loss.

    ``tick`` is told how many scenes were done.
    """
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    source = batches(SceneSource("train", settings.size), settings.batch, start=FIRST_SCENE)
    for _ in range(-(-settings.router_scenes // settings.batch)):
        batch = next(source)
        features = model.first(batch.images)
        outputs = {Part.HEAD: model.head(features), Part.HEAD2: model.second(features)}
        losses = [
            losses_of_images(model, part, levels, batch.targets, settings.loss)
            for part, levels in outputs.items()
        ]
        objects = batch.targets.image_ids.bincount(minlength=len(batch.images))
        columns.append((model.pooled(features), losses[0], losses[1], objects))
        tick(len(batch.images))
    pooled, first, second, objects = (torch.cat(c) for c in zip(*columns, strict=True))
    weight = objects / objects.float().mean()
    return Evidence(pooled, first * weight, second * weight)


def router_loss(easiness: Tensor, first: Tensor, second: Tensor, median: float) -> Tensor:
    """Expected loss of a random exit, of (N,) scenes: a scalar.

    ``easiness`` is the chance of the first exit. ``median`` of ``first - second`` is charged half
    to either side, so that half of the scenes are better off at each
    (Lin et al., "DynamicDet", CVPR 2023, section 3.3).
    """
    return (easiness * (first - median / 2) + (1 - easiness) * (second + median / 2)).mean()


def train_router(model: DynamicDetector, evidence: Evidence, settings: Recipe, seed: int) -> None:
    """Train ``model.router`` in place, scene by scene, with the running median of the gain."""
    assert model.router is not None
    router = model.router.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        router.parameters(), lr=settings.router_rate, weight_decay=settings.router_decay
    )
    order = torch.Generator().manual_seed(seed)
    gain = evidence.first - evidence.second
    seen: list[Tensor] = []
    for _ in range(settings.router_epochs):
        shuffled = torch.randperm(len(gain), generator=order)
        for chosen in torch.split(shuffled, settings.router_batch):
            seen.append(gain[chosen])
            seen = seen[-settings.router_memory :]
            loss = router_loss(
                router(evidence.pooled[chosen])[:, 0],
                evidence.first[chosen],
                evidence.second[chosen],
                float(torch.cat(seen).median()),
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # untyped torch
            optimizer.step()
    router.eval().requires_grad_(False)


@torch.no_grad()
def easiness_quantiles(model: DynamicDetector, evidence: Evidence) -> list[float]:
    """Easiness at 5, 25, 50, 75 and 95 % of the scenes: shows whether it spreads."""
    assert model.router is not None
    easiness = model.router(evidence.pooled)[:, 0]
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    return [round(value, 4) for value in torch.quantile(easiness, levels).tolist()]
