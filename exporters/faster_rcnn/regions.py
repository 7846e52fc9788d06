"""Regions cut out of the pyramid (RoIAlign, He et al., "Mask R-CNN", ICCV 2017).

In PyTorch every level is sampled by itself. In ONNX, where ``RoiAlign`` reads one map and shapes
have to stand before regions are known, the levels lie side by side in one map, and each region is
moved to where its level lies: no region is sampled on a level that is not its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.faster_rcnn.conventions import STRIDES, Conventions
from dyninfer.exporters.faster_rcnn.structure import LATERALS, POOLED

_FINEST = 56  # side in pixels of the regions for which P2 is meant
_EPSILON = 5e-7  # a side this much below a bound counts as on it, as both libraries have it
_AT_ONCE = 32  # regions, of which each takes megabytes while it is sampled


class RegionMaps(nn.Module):
    """P2 to P5 and proposals (N, R, 4) in pixels -> a map of each region, (N, R, C P P)."""

    def __init__(self, conventions: Conventions) -> None:
        super().__init__()
        self.conventions = conventions

    def forward(self, maps: Sequence[Tensor], proposals: Tensor) -> Tensor:
        level = _levels(proposals)
        if torch.onnx.is_in_onnx_export():
            return self._in_one_map(maps, proposals, level)
        samples = self.conventions.samples
        channels = maps[0].shape[1]
        found = proposals.new_zeros(*proposals.shape[:2], channels, POOLED, POOLED)
        for image in range(len(proposals)):
            for index, (map_, stride) in enumerate(zip(maps, STRIDES, strict=False)):
                rows = (level[image] == index).nonzero()[:, 0]
                boxes = proposals[image, rows] / stride
                found[image, rows] = align(
                    map_[image], boxes, samples, aligned=self.conventions.aligned
                )
        return found.flatten(2)

    def _in_one_map(self, maps: Sequence[Tensor], proposals: Tensor, level: Tensor) -> Tensor:
        sheet, places = _side_by_side(maps)
        scales = torch.tensor([[1 / stride] for stride in STRIDES[:LATERALS]])
        offsets = torch.tensor([[x, y, x, y] for x, y in places]).float()
        boxes = proposals * F.embedding(level, scales) + F.embedding(level, offsets)
        images, count, channels = *proposals.shape[:2], maps[0].shape[1]
        of_image = torch.arange(images).unsqueeze(1).expand(images, count).reshape(-1)
        found = torch.onnx.ops.symbolic(
            "RoiAlign",
            (sheet, boxes.reshape(-1, 4), of_image),
            {
                "coordinate_transformation_mode": (
                    "half_pixel" if self.conventions.aligned else "output_half_pixel"
                ),
                "mode": "avg",
                "output_height": POOLED,
                "output_width": POOLED,
                "sampling_ratio": self.conventions.samples,
                "spatial_scale": 1.0,
            },
            dtype=sheet.dtype,
            shape=(images * count, channels, POOLED, POOLED),
        )
        found = found.reshape(-1, count, channels, POOLED, POOLED)
        if not self.conventions.aligned:
            found = found * self._inside(maps, proposals, level)
        return found.flatten(2)

    def _inside(self, maps: Sequence[Tensor], proposals: Tensor, level: Tensor) -> Tensor:
        """(N, R, 1, P, P) the share of a cell's samples that lie on its level.

        A thin region at the far edges, which is taken for a place wide, reaches beyond it; what
        lies there counts nothing, and all of a cell that is partly there is the edge's own value.
        """
        ends = torch.tensor([[map_.shape[3], map_.shape[2]] for map_ in maps]).float()
        scales = torch.tensor([[1 / stride] for stride in STRIDES[:LATERALS]])
        boxes = proposals * F.embedding(level, scales)
        low, sides = boxes[..., :2], (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)
        at = low.unsqueeze(3) + sides.unsqueeze(3) * _steps(self.conventions.samples) / POOLED
        inside = (at <= F.embedding(level, ends).unsqueeze(3)).to(at.dtype)
        shares = inside.reshape(*inside.shape[:3], POOLED, self.conventions.samples).mean(4)
        share_x, share_y = shares[:, :, 0], shares[:, :, 1]
        return (share_y.unsqueeze(3) * share_x.unsqueeze(2)).unsqueeze(2)


def _levels(boxes: Tensor) -> Tensor:
    """Which level each of boxes (..., 4) is looked for on: 0 for P2, up to 3."""
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    bounds = [(_FINEST * 2**level * (1 - _EPSILON)) ** 2 for level in range(1, LATERALS)]
    return torch.stack([area >= bound for bound in bounds], -1).long().sum(-1)


def _side_by_side(maps: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Four levels in one map, the coarser ones at the right of P2, and where each begins (x, y).

    A level has its own edges once more around it, the far ones twice, which is what RoIAlign takes
    beyond an edge.
    """
    fine, *coarse = [_framed(map_) for map_ in maps]
    width = coarse[0].shape[3]
    right = torch.cat([_filled(each, 3, width) for each in coarse], 2)
    height = max(fine.shape[2], right.shape[2])
    places, top = [(1, 1)], 1
    for each in coarse:
        places.append((fine.shape[3] + 1, top))
        top += each.shape[2]
    return torch.cat([_filled(fine, 2, height), _filled(right, 2, height)], 3), places


def _filled(x: Tensor, axis: int, size: int) -> Tensor:
    """A map with zeros up to a size, which are never read."""
    shape = list(x.shape)
    shape[axis] = size - shape[axis]
    return torch.cat([x, x.new_zeros(shape)], axis) if shape[axis] else x


def _framed(x: Tensor) -> Tensor:
    """A map with its edges repeated; of joined slices, which every backend has."""
    x = torch.cat([x[..., :1], x, x[..., -1:], x[..., -1:]], 3)
    return torch.cat([x[..., :1, :], x, x[..., -1:, :], x[..., -1:, :]], 2)


def align(map_: Tensor, boxes: Tensor, samples: int, *, aligned: bool) -> Tensor:
    """A map (C, H, W) and boxes (K, 4) in its places -> (K, C, P, P), averages of samples.

    ``samples`` are those of a cell in each direction, 0 for as many as it has places.
    """
    low = boxes[:, :2] - (0.5 if aligned else 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    counts = torch.full_like(sides, samples).long() if samples else (sides / POOLED).ceil().long()
    found = map_.new_zeros(len(boxes), len(map_), POOLED, POOLED)
    for pair in map(torch.tensor, sorted({tuple(each) for each in counts.tolist()})):
        if pair.min() < 1:
            continue  # of no size, and so without a sample
        group = (counts == pair).all(1).nonzero()[:, 0]
        for start in range(0, len(group), _AT_ONCE):
            rows = group[start : start + _AT_ONCE]
            found[rows] = _sampled(map_, low[rows], sides[rows], *reversed(pair.tolist()))
    return found


def _sampled(map_: Tensor, low: Tensor, sides: Tensor, in_y: int, in_x: int) -> Tensor:
    places = [
        _along(low[:, axis], sides[:, axis], count, map_.shape[2 - axis])
        for axis, count in enumerate((in_x, in_y))
    ]
    (x, right, weight_x), (y, below, weight_y) = places
    total = map_.new_zeros(())
    for rows, share_y in ((y, weight_y[0]), (below, weight_y[1])):
        for columns, share_x in ((x, weight_x[0]), (right, weight_x[1])):
            values = map_[:, rows.unsqueeze(2), columns.unsqueeze(1)]
            total = total + values * (share_y.unsqueeze(2) * share_x.unsqueeze(1))
    cells = total.reshape(*total.shape[:2], POOLED, in_y, POOLED, in_x)
    return cells.mean((3, 5)).transpose(0, 1)


def _along(
    low: Tensor, side: Tensor, count: int, size: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Samples along an axis: the places before and behind them (K, P n), and their weights.

    A sample beyond an edge is on it, and one that is farther than a place counts nothing.
    """
    at = low.unsqueeze(1) + side.unsqueeze(1) / POOLED * _steps(count).to(low.dtype)
    inside = ((at >= -1) & (at <= size)).to(low.dtype)
    at = at.clamp(0, size - 1)
    before = at.floor().long()
    share = at - before
    return before, (before + 1).clamp(max=size - 1), (inside * (1 - share), inside * share)


def _steps(count: int) -> Tensor:
    """Where ``count`` samples of each cell lie along an axis, in cells."""
    return (torch.arange(POOLED * count) + 0.5) / count
