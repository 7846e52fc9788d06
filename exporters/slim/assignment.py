"""Which places of a detector are to find which object: adaptive training sample selection (ATSS).

Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", CVPR 2020, section 4 and algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dyninfer.exporters.zendet.detector import STRIDES, centres_of

NEAREST = 9
"""Places of each level that an object chooses among (section 4.3)."""
_SIDE = 8  # of a place's square anchor, in strides (section 3.1)


@dataclass(frozen=True)
class Places:
    """All places of a detector for an image size: centres (A, 2) and strides (A,) in pixels.

    ``counts`` are how many each level has.
    """

    centres: Tensor
    strides: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, image_size: tuple[int, int]) -> Places:
        """Of images of (height, width)."""
        levels = [centres_of(image_size, stride) for stride in STRIDES]
        counts = tuple(len(level) for level in levels)
        strides = torch.tensor(STRIDES, dtype=torch.float32)
        return cls(torch.cat(levels), strides.repeat_interleave(torch.tensor(counts)), counts)

    @property
    def anchors(self) -> Tensor:
        """(A, 4), left, top, right, bottom."""
        half = self.strides[:, None] * _SIDE / 2
        return torch.cat([self.centres - half, self.centres + half], 1)


def assign(places: Places, boxes: Tensor) -> Tensor:
    """For each place the number of the object that it is to find, or -1: (A,) int64.

    ``boxes`` (M, 4) are the objects', in pixels of the detector's image. An object that algorithm 1
    leaves without a place, as one narrower than the finest stride, gets the nearest; that is ours.
    """
    if not len(boxes):
        return torch.full((len(places.centres),), -1)
    distances = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, places.centres)
    candidates = _nearest_of_each_level(distances, places.counts)
    overlaps = iou(boxes[:, None], places.anchors[None])
    own = overlaps.gather(1, candidates)
    threshold = own.mean(1, keepdim=True) + own.std(1, keepdim=True)
    chosen = torch.zeros_like(overlaps, dtype=torch.bool)
    centres = places.centres[candidates]
    inside = (centres > boxes[:, None, :2]).all(2) & (centres < boxes[:, None, 2:]).all(2)
    chosen.scatter_(1, candidates, (own >= threshold) & inside)
    lost = ~chosen.any(1)
    chosen[lost, distances.argmin(1)[lost]] = True
    # a place that several objects choose finds the one that its anchor overlaps most
    best = overlaps.masked_fill(~chosen, -1.0).max(0)
    return best.indices.masked_fill(best.values < 0, -1)


def _nearest_of_each_level(distances: Tensor, counts: tuple[int, ...]) -> Tensor:
    found, first = [], 0
    for level, count in zip(torch.split(distances, list(counts), 1), counts, strict=True):
        found.append(level.topk(min(NEAREST, count), 1, largest=False).indices + first)
        first += count
    return torch.cat(found, 1)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) as left, top, right, bottom."""
    overlap, union = intersection_and_union(boxes, others)
    return overlap / union


def intersection_and_union(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of both of pairs of boxes (..., 4); a union is never 0."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (boxes, others)]
    return overlap, (areas[0] + areas[1] - overlap).clamp(min=1e-9)
