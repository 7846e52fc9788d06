"""Batch norms, fusion weights and the order of box codes folded into the convolutions.

All arithmetic is in float64, so that folding adds no error beyond the last rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dyninfer.exporters.efficientdet.layers import (
    ConvNorm,
    MobileBlock,
    Separable,
    SeparableNorm,
    resized,
)
from dyninfer.exporters.efficientdet.model import (
    XYWH,
    Backbone,
    Cell,
    EdgeConv,
    EfficientDet,
    Fusions,
    Head,
    Levels,
    Node,
    Pyramid,
)
from dyninfer.exporters.efficientdet.structure import ANCHORS, BACKBONE_LEVELS

_SMALLEST_SCALE = 0.001  # smaller ones would lose half precision's small values


class FoldedEfficientDet(nn.Module):
    """Normalised images (N, 3, H, W) -> class logits (N, A, C) and box codes (N, A, 4)."""

    def __init__(self, model: EfficientDet) -> None:
        super().__init__()
        self.backbone = model.backbone
        _fold_backbone(model.backbone)
        levels = model.fpn.levels
        self.fpn = FoldedPyramid(model.fpn)
        self.class_net = FoldedHead(model.class_net, levels, None)
        self.box_net = FoldedHead(model.box_net, levels, XYWH)

    def features(self, images: Tensor) -> Levels:
        """As :meth:`EfficientDet.features`."""
        return self.fpn(self.backbone(images))  # type: ignore[no-any-return]  # untyped torch

    def predict(self, levels: Levels) -> tuple[Tensor, Tensor]:
        """As :meth:`EfficientDet.predict`."""
        return self.class_net(levels), self.box_net(levels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.predict(self.features(images))


def fold(model: EfficientDet) -> FoldedEfficientDet:
    """A model that computes the same, with few and simple operators."""
    doubled = copy.deepcopy(model).eval().requires_grad_(False).double()
    return FoldedEfficientDet(doubled).float()


def _merged(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def _scale(conv: nn.Conv2d, factor: float) -> None:
    assert conv.bias is not None
    conv.weight *= factor
    conv.bias *= factor


def _fold_backbone(backbone: Backbone) -> None:
    pairs: list[tuple[nn.Module, str, str]] = [(backbone, "conv_stem", "bn1")]
    for block in backbone.modules():
        if isinstance(block, MobileBlock):
            pairs += [(block, *names) for names in block.pairs()]
    for module, conv, norm in pairs:
        setattr(module, conv, _merged(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


@dataclass(frozen=True)
class _Edge:
    """Where a node's term comes from, the convolution on the way, and its weight."""

    source: int
    conv: ConvNorm | None
    weight: float


class FoldedPyramid(nn.Module):
    """The pyramid with a factor on each edge instead of normalised weights.

    Features are numbered throughout: P3, P4, ... and then the results of all nodes. One leaves its
    node scaled by the largest weight of an edge from it, so that this edge needs no factor; but the
    pyramid's results leave as they are, since stages of their own may read them.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        count, cells = pyramid.levels, _cells(pyramid)
        nodes = [node for _, fused in cells for node in fused]
        self.levels = [level for joined, _ in cells for level, _ in joined]
        edges, results = _edges(pyramid)
        scales = _scales(edges, count, results, own=bool(pyramid.resample))
        self.results = results
        self.fnode = nn.ModuleList(
            FoldedNode(node, joins, scales, scales[count + index])
            for index, (node, joins) in enumerate(zip(nodes, edges, strict=True))
        )
        for edge in pyramid.resample.values():
            assert isinstance(edge, EdgeConv)
            _scale(_fold_norm(edge.conv), scales[BACKBONE_LEVELS])
        del pyramid.cell
        self.coarser = pyramid

    def forward(self, levels: Levels) -> Levels:
        features = self.coarser.coarser(levels)
        sizes = [(x.shape[2], x.shape[3]) for x in features]
        for level, node in zip(self.levels, self.fnode, strict=True):
            features.append(node(features, sizes[level]))
        return [features[number] for number in self.results]


class FoldedNode(nn.Module):
    """A node whose weights are in convolutions, here or before, as far as they can be."""

    def __init__(
        self, node: Node, joins: Sequence[_Edge], scales: Sequence[float], scale: float
    ) -> None:
        super().__init__()
        self.same, self.act = node.combine.same, node.act
        joins = [edge for edge in joins if edge.weight > 0] or joins[:1]
        self.sources = [edge.source for edge in joins]
        self.factors, self.convs = [], nn.ModuleList()
        for edge in joins:
            factor = edge.weight / scales[edge.source]
            if edge.conv is not None:
                _scale(_fold_norm(edge.conv), factor)
            self.convs.append(edge.conv or nn.Identity())
            self.factors.append(factor if edge.conv is None else 1.0)
        after = node.after_combine["conv"]
        assert isinstance(after, SeparableNorm)
        self.deep, self.point = after.conv_dw, _merged(after.conv_pw, after.bn)
        _scale(self.point, scale)

    def forward(self, features: Levels, size: tuple[int, int]) -> Tensor:
        terms = []
        for source, conv, factor in zip(self.sources, self.convs, self.factors, strict=True):
            x = conv(features[source])
            if factor == 1:
                terms.append(resized(x, size, self.same))
            elif x.shape[2] > size[0]:  # there are fewer pixels to multiply afterwards
                terms.append(resized(x, size, self.same) * factor)
            else:
                terms.append(resized(x * factor, size, self.same))
        return self.point(self.deep(self.act(reduce(torch.add, terms))))  # type: ignore[no-any-return]  # untyped torch


def _fold_norm(conv: ConvNorm) -> nn.Conv2d:
    """The convolution with the norm behind it, both in its place."""
    conv.conv, conv.bn = _merged(conv.conv, conv.bn), nn.Identity()
    return conv.conv


def _cells(pyramid: Pyramid) -> list[tuple[Fusions, list[Node]]]:
    """What the nodes of each cell join, and the nodes."""
    return [
        (cell.nodes, [node for node in cell.fnode if isinstance(node, Node)])
        for cell in pyramid.cell
        if isinstance(cell, Cell)
    ]


def _edges(pyramid: Pyramid) -> tuple[list[list[_Edge]], list[int]]:
    """The edges into every node, and the numbers of the last cell's results."""
    inputs, count, found = list(range(pyramid.levels)), pyramid.levels, []
    for joined, nodes in _cells(pyramid):
        numbers = list(inputs)
        for (_, joins), node in zip(joined, nodes, strict=True):
            weights = node.combine.weights()
            values = [1.0] * len(joins) if weights is None else weights.tolist()
            edges, convs = [], dict(node.combine.resample.items())
            for n, value in zip(joins, values, strict=True):
                own = convs.get(str(n))
                conv = own.conv if isinstance(own, EdgeConv) else None
                edges.append(_Edge(numbers[n], conv, value))
            found.append(edges)
            numbers.append(count)
            count += 1
        inputs = numbers[-pyramid.levels :]
    return found, inputs


def _scales(
    edges: Sequence[Sequence[_Edge]], levels: int, results: Sequence[int], *, own: bool
) -> list[float]:
    """A factor for every feature, by number: 1 for results, and where no convolution can take it.

    The levels that the backbone lacks are pooled from each other, and share one.
    """
    weights: list[list[float]] = [[] for _ in range(levels + len(edges))]
    for edge in (edge for node in edges for edge in node if edge.conv is None):
        weights[edge.source].append(edge.weight)
    pooled = [w for uses in weights[BACKBONE_LEVELS:levels] for w in uses] if own else []
    for number in (*range(levels), *results):
        weights[number] = pooled if BACKBONE_LEVELS <= number < levels else []
    largest = (max(uses, default=1.0) for uses in weights)
    return [w if w >= _SMALLEST_SCALE else 1.0 for w in largest]


class FoldedHead(nn.Module):
    """All levels -> (N, A, outputs), with convolutions of its own for each level's batch norm.

    The prediction is one product for the pixels of all levels; ``order`` are the places of its
    outputs, None for their own.
    """

    def __init__(self, head: Head, levels: int, order: Sequence[int] | None) -> None:
        super().__init__()
        self.outputs, self.act = head.outputs, head.act
        self.deep, self.levels = nn.ModuleList(), nn.ModuleList()
        for repeat, conv in enumerate(head.conv_rep):
            assert isinstance(conv, Separable)
            self.deep.append(conv.conv_dw)
            points = (_merged(conv.conv_pw, head.norm(repeat, n)) for n in range(levels))
            self.levels.append(nn.ModuleList(points))
        self.last = head.predict.conv_dw
        last = head.predict.conv_pw
        assert last.bias is not None
        weight, bias = last.weight.flatten(1), last.bias
        if order is not None:
            rows = [anchor * self.outputs + n for anchor in range(ANCHORS) for n in order]
            weight, bias = weight[rows], bias[rows]
        self.predict = nn.Linear(weight.shape[1], weight.shape[0])
        self.predict.weight, self.predict.bias = (
            nn.Parameter(t.contiguous(), requires_grad=False) for t in (weight, bias)
        )

    def forward(self, levels: Levels) -> Tensor:
        rows = []
        for level, x in enumerate(levels):
            for deep, points in zip(self.deep, self.levels, strict=True):
                assert isinstance(points, nn.ModuleList)
                x = self.act(points[level](deep(x)))
            rows.append(self.last(x).reshape(-1, x.shape[1], x.shape[2] * x.shape[3]))
        places = torch.cat(rows, 2).transpose(1, 2)
        return self.predict(places).reshape(-1, places.shape[1] * ANCHORS, self.outputs)  # type: ignore[no-any-return]  # untyped torch
