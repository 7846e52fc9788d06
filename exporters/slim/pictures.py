"""Labelled pictures as batches that a detector learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dyninfer.evaluation.dataset import Sample
from dyninfer.exporters.slim.loss import Objects
from dyninfer.images.pictures import read_image
from dyninfer.images.spec import ImageSpec, Placement

_FURTHEST = 1 / 16  # of the image's sides, by which a picture is moved
_GAIN = 0.2  # by which its contrast changes, either way
_LEFT = 0.5  # of an object's area, below which it is not to be found after a move


@dataclass(frozen=True)
class Batch:
    """``images`` (N, 3, H, W) float32 as the detector takes them, and what is in each."""

    images: Tensor
    objects: tuple[Objects, ...]


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures that ``spec`` prepares; crowds are no objects."""

    samples: Sequence[Sample]
    spec: ImageSpec

    def batches(self, size: int, seed: int) -> Iterator[Batch]:
        """Batches without end: every picture once, then in another order, moved a little.

        Raises:
            InputError: a picture cannot be read.
        """
        rng = np.random.default_rng(seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < size:
                waiting += rng.permutation(len(self.samples)).tolist()
            chosen, waiting = waiting[:size], waiting[size:]
            yield _stacked([_moved(*self._read(index), rng) for index in chosen])

    def in_order(self, size: int) -> Iterator[tuple[Tensor, list[Placement]]]:
        """The images alone, as they are, each once, and where the pictures lie in them."""
        for first in range(0, len(self.samples), size):
            read = [read_image(sample.path) for sample in self.samples[first : first + size]]
            images = torch.stack([torch.from_numpy(self.spec.prepare(each)) for each in read])
            yield images, [self.spec.place(each.shape[1], each.shape[0]) for each in read]

    def _read(self, index: int) -> tuple[Tensor, Objects]:
        picture, truth = read_image(self.samples[index].path), self.samples[index].truth
        assert truth is not None  # labels were asked for
        place = self.spec.place(picture.shape[1], picture.shape[0])
        boxes = torch.from_numpy(place.to_tensor(truth.boxes_xyxy[~truth.crowds]))
        class_ids = torch.from_numpy(truth.class_ids[~truth.crowds])
        return torch.from_numpy(self.spec.prepare(picture)), Objects(boxes, class_ids)


def _stacked(pairs: Sequence[tuple[Tensor, Objects]]) -> Batch:
    images, objects = zip(*pairs, strict=True)
    return Batch(torch.stack(images), objects)


def _moved(image: Tensor, objects: Objects, rng: np.random.Generator) -> tuple[Tensor, Objects]:
    """Shifted by whole pixels, with another contrast."""
    down, right = (
        int(rng.integers(-reach, reach + 1))
        for reach in (round(side * _FURTHEST) for side in image.shape[1:])
    )
    image = F.pad(image, (right, -right, down, -down)) * float(rng.uniform(1 - _GAIN, 1 + _GAIN))
    shift = torch.tensor([right, down, right, down])
    return image, _inside(Objects(objects.boxes + shift, objects.class_ids), image)


def _inside(objects: Objects, image: Tensor) -> Objects:
    """Cut to the image; what is left of some is too little."""
    height, width = image.shape[1:]
    boxes = torch.minimum(objects.boxes.clamp(min=0), torch.tensor([width, height] * 2))
    areas, left = ((each[:, 2:] - each[:, :2]).prod(1) for each in (objects.boxes, boxes))
    kept = (left > 0) & (left >= _LEFT * areas)
    return Objects(boxes[kept], objects.class_ids[kept])
