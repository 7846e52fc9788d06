"""Scenes as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dyninfer.demo.scenes import Scene, SceneSource
from training.loss import Targets


@dataclass(frozen=True)
class Batch:
    """``images`` (N, 3, H, W) float32 RGB in [0, 1], channels last, and what is in them."""

    images: Tensor
    targets: Targets


def collate(scenes: Sequence[Scene]) -> Batch:
    """One batch of scenes of equal size."""
    pixels = np.stack([scene.image[..., ::-1] for scene in scenes])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    image_ids = np.repeat(np.arange(len(scenes)), [len(scene.class_ids) for scene in scenes])
    boxes = np.concatenate([scene.boxes_xyxy for scene in scenes])
    low, high = boxes[:, :2], boxes[:, 2:]
    targets = Targets(
        torch.from_numpy(image_ids),
        torch.from_numpy(np.concatenate([scene.class_ids for scene in scenes])),
        torch.from_numpy(np.concatenate([(low + high) / 2, high - low], 1)),
    )
    return Batch(images.contiguous(memory_format=torch.channels_last), targets)


def batches(source: SceneSource, size: int, start: int = 0, skip: int = 0) -> Iterator[Batch]:
    """Batches of ``size`` consecutive scenes without end, one being prepared ahead.

    After each batch ``skip`` scenes are left out: they belong to other processes.
    """

    def make(first: int) -> Batch:
        return collate(source.scenes(range(first, first + size)))

    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(make, start)
        while True:
            start += size + skip
            ready, ahead = ahead.result(), thread.submit(make, start)
            yield ready
