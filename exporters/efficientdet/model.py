"""A whole EfficientDet in PyTorch, and how it is made from weights.

Source: Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from dyninfer.exporters.efficientdet.layers import (
    NATIVE_EPS,
    NORM_EPS,
    ConvNorm,
    LevelNorm,
    MobileBlock,
    Separable,
    SeparableNorm,
    conv,
    resized,
)
from dyninfer.exporters.efficientdet.structure import (
    ANCHORS,
    BACKBONE_LEVELS,
    STRIDES,
    TAPS,
    Structure,
    read_structure,
)
from dyninfer.exporters.weights import load_strictly

FUSION_EPS = 1e-4  # keeps normalised weights from dividing by zero
XYWH = [1, 0, 3, 2]
"""Places of tx, ty, tw, th in what the box head predicts: ty, tx, th, tw."""
Fusions = list[tuple[int, tuple[int, ...]]]
Levels = list[Tensor]
"""P3, P4, ... (N, C, H, W), each half the size of the one before, rounded up."""


class Backbone(nn.Module):
    """An EfficientNet up to its last stage: images -> P3, P4, P5; ``same`` is its padding."""

    def __init__(self, structure: Structure, same: bool) -> None:
        super().__init__()
        eps = NORM_EPS if same else NATIVE_EPS
        self.act = activation(structure)
        self.conv_stem = conv(3, structure.stem, 3, stride=2, same=same)
        self.bn1: nn.Module = nn.BatchNorm2d(structure.stem, eps)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    MobileBlock(block, 1 if index else stride, self.act, eps, same)
                    for index, block in enumerate(stage)
                )
            )
            for stage, stride in zip(structure.stages, STRIDES, strict=True)
        )

    def forward(self, images: Tensor) -> Levels:
        x = self.act(self.bn1(self.conv_stem(images)))
        levels = []
        for index, stage in enumerate(self.blocks):
            x = stage(x)
            if index in TAPS:
                levels.append(x)
        return levels


def activation(structure: Structure) -> nn.Module:
    """SiLU, or ReLU6 of Lite models."""
    return nn.ReLU6() if structure.lite else nn.SiLU()


def fusions(levels: int) -> Fusions:
    """The nodes of a cell: the level of each, and the features that it joins, by number.

    0 to ``levels - 1`` are the cell's inputs, from fine to coarse, and further numbers its nodes'
    results: first the way down to the finest level, then the way up. The last ``levels`` numbers
    are the cell's outputs.
    """
    top = levels - 1
    down = {level: levels + top - 1 - level for level in range(top)}  # numbers of the way down
    nodes: Fusions = [(level, (level, down.get(level + 1, top))) for level in reversed(range(top))]
    for level in range(1, levels):
        own = (down[level],) if level < top else ()
        below = down[0] if level == 1 else levels + len(nodes) - 1
        nodes.append((level, (level, *own, below)))
    return nodes


class Combine(nn.Module):
    """Features of several levels, resized and added up with the weights of each edge."""

    edge_weights: nn.Parameter | None

    def __init__(self, structure: Structure, own: Mapping[int, int], edges: int) -> None:
        super().__init__()
        bias = structure.redundant_bias
        self.same = structure.same_padding
        self.resample = nn.ModuleDict(
            {str(n): EdgeConv(cin, structure.channels, bias=bias) for n, cin in own.items()}
        )
        self.edge_weights = nn.Parameter(torch.ones(edges)) if structure.weighted else None

    def weights(self) -> Tensor | None:
        """Fast normalised fusion, w / (sum of all w + epsilon) with w >= 0; None for a sum."""
        if self.edge_weights is None:
            return None
        positive = self.edge_weights.relu()
        return positive / (positive.sum() + FUSION_EPS)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        terms = []
        for number, x in features.items():
            if str(number) in self.resample:
                x = self.resample[str(number)](x)
            terms.append(resized(x, size, self.same))
        weights = self.weights()
        if weights is not None:
            terms = [x * weights[place] for place, x in enumerate(terms)]
        return reduce(torch.add, terms)


class EdgeConv(nn.Module):
    """Brings a backbone's feature to the pyramid's width."""

    def __init__(self, cin: int, cout: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = ConvNorm(cin, cout, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Node(nn.Module):
    """Fusion, activation, separable convolution, batch norm."""

    def __init__(self, structure: Structure, own: Mapping[int, int], edges: int) -> None:
        super().__init__()
        self.combine = Combine(structure, own, edges)
        after = SeparableNorm(structure.channels, bias=structure.redundant_bias)
        self.after_combine = nn.ModuleDict({"conv": after})
        self.act = activation(structure)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        joined = self.act(self.combine(features, size))
        return self.after_combine["conv"](joined)  # type: ignore[no-any-return]  # untyped torch


class Cell(nn.Module):
    """One way down and one up; in the first, edges from the backbone have convolutions."""

    def __init__(self, structure: Structure, first: bool) -> None:
        super().__init__()
        self.nodes = fusions(structure.levels)
        foreign = {
            n: cin for n, cin in enumerate(structure.taps) if first and cin != structure.channels
        }
        self.fnode = nn.ModuleList(
            Node(structure, {n: foreign[n] for n in joins if n in foreign}, len(joins))
            for _, joins in self.nodes
        )

    def forward(self, levels: Levels) -> Levels:
        features = list(levels)
        for (level, joins), node in zip(self.nodes, self.fnode, strict=True):
            size = (levels[level].shape[2], levels[level].shape[3])
            features.append(node({n: features[n] for n in joins}, size))
        return features[-len(levels) :]


class Pyramid(nn.Module):
    """BiFPN: P3 to P5 of the backbone -> all levels, of one width."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.levels, self.same = structure.levels, structure.same_padding
        bias, last = structure.redundant_bias, structure.taps[-1]
        own = {} if last == structure.channels else {str(BACKBONE_LEVELS): last}
        self.resample = nn.ModuleDict(
            {name: EdgeConv(cin, structure.channels, bias=bias) for name, cin in own.items()}
        )
        self.cell = nn.ModuleList(
            Cell(structure, first=index == 0) for index in range(structure.cells)
        )

    def coarser(self, levels: Levels) -> Levels:
        """The backbone's levels and those that it lacks, each pooled from the one before."""
        levels = list(levels)
        x = levels[-1]
        for level in range(len(levels), self.levels):
            if str(level) in self.resample:
                x = self.resample[str(level)](x)
            x = resized(x, (-(-x.shape[2] // 2), -(-x.shape[3] // 2)), self.same)
            levels.append(x)
        return levels

    def forward(self, levels: Levels) -> Levels:
        levels = self.coarser(levels)
        for cell in self.cell:
            levels = cell(levels)
        return levels


class Head(nn.Module):
    """Convolutions that all levels share, with a batch norm for each level, and a prediction.

    All levels -> (N, anchors, outputs): levels from fine to coarse, rows, columns, anchors.
    """

    def __init__(self, structure: Structure, outputs: int) -> None:
        super().__init__()
        width, bias = structure.channels, structure.redundant_bias
        self.outputs, self.level_first = outputs, structure.level_first
        self.act = activation(structure)
        self.conv_rep = nn.ModuleList(
            Separable(width, width, bias=bias) for _ in range(structure.repeats)
        )
        counts = (structure.repeats, structure.levels)
        outer, inner = reversed(counts) if self.level_first else counts
        norm = (
            (lambda: nn.BatchNorm2d(width, NORM_EPS))
            if self.level_first
            else (lambda: LevelNorm(width))
        )
        self.bn_rep = nn.ModuleList(
            nn.ModuleList(norm() for _ in range(inner)) for _ in range(outer)
        )
        self.predict = Separable(width, outputs * ANCHORS, bias=True)

    def norm(self, repeat: int, level: int) -> nn.BatchNorm2d:
        """The batch norm behind a repeat at a level."""
        outer, inner = (level, repeat) if self.level_first else (repeat, level)
        norm = self.bn_rep[outer][inner]  # type: ignore[index]  # untyped torch
        return norm if self.level_first else norm.bn  # type: ignore[no-any-return]  # untyped torch

    def raw(self, levels: Sequence[Tensor]) -> Levels:
        """The prediction of each level, (N, anchors * outputs, H, W)."""
        predictions = []
        for level, x in enumerate(levels):
            for repeat, convolution in enumerate(self.conv_rep):
                x = self.act(self.norm(repeat, level)(convolution(x)))
            predictions.append(self.predict(x))
        return predictions

    def forward(self, levels: Levels) -> Tensor:
        rows = [
            x.permute(0, 2, 3, 1).reshape(-1, x.shape[2] * x.shape[3] * ANCHORS, self.outputs)
            for x in self.raw(levels)
        ]
        return torch.cat(rows, 1)


class EfficientDet(nn.Module):
    """Normalised images (N, 3, H, W) -> class logits (N, A, C) and box codes (N, A, 4).

    A box's code is (tx, ty, tw, th): :class:`dyninfer.exporters.efficientdet.stages.Decode`. With
    ``native_backbone`` that is padded as PyTorch's, whatever the rest is.
    """

    def __init__(self, structure: Structure, *, native_backbone: bool = False) -> None:
        super().__init__()
        self.structure = structure
        self.backbone = Backbone(structure, structure.same_padding and not native_backbone)
        self.fpn = Pyramid(structure)
        self.class_net = Head(structure, structure.classes)
        self.box_net = Head(structure, 4)

    def features(self, images: Tensor) -> Levels:
        """Images -> the pyramid's maps of all levels."""
        return self.fpn(self.backbone(images))  # type: ignore[no-any-return]  # untyped torch

    def predict(self, levels: Levels) -> tuple[Tensor, Tensor]:
        """The pyramid's maps -> class logits and box codes."""
        return self.class_net(levels), self.box_net(levels)[..., XYWH]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.predict(self.features(images))

    def keep_classes(self, columns: Sequence[int]) -> None:
        """Predict only these columns of the class logits from now on."""
        last, outputs = self.class_net.predict.conv_pw, self.class_net.outputs
        assert last.bias is not None
        rows = [anchor * outputs + column for anchor in range(ANCHORS) for column in columns]
        last.weight, last.bias = (
            nn.Parameter(t[rows], requires_grad=False) for t in (last.weight, last.bias)
        )
        last.out_channels, self.class_net.outputs = len(rows), len(columns)


def model_from_state(state: Mapping[str, Tensor], *, native_backbone: bool = False) -> EfficientDet:
    """The model that ``state`` was saved from, in float32 and evaluation mode; loading is strict.

    Counts of batches, which no result depends on, may be missing.

    Raises:
        CheckpointError: it is of no EfficientDet, keys are missing or left over, or a shape does
            not fit; all are named.
    """
    structure = read_structure({name: tuple(tensor.shape) for name, tensor in state.items()})
    with torch.device("meta"):  # no memory is taken before the shapes are known to fit
        model = EfficientDet(structure, native_backbone=native_backbone)
    counts = [name for name in model.state_dict() if name.endswith(".num_batches_tracked")]
    state = {**{name: torch.zeros((), dtype=torch.int64) for name in counts}, **state}
    hint = "only D0 to D7x and Lite, with separable convolutions and a BiFPN, are known"
    load_strictly(model, state, f"an EfficientDet of {structure}", hint)
    return model
