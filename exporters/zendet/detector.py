"""GFLV2 on a ZenDet backbone: feature pyramid, head, and the boxes that it means.

Source: Li et al., "Generalized Focal Loss V2", CVPR 2021, sections 3.2 and 3.3. Parameter names are
those of mmdetection 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.best_rows import best_rows, rows_at
from dyninfer.exporters.zendet.backbone import Backbone
from dyninfer.search.structure import Structure

STRIDES = (8, 16, 32, 64, 128)
LATERALS = 3  # of C3, C4 and C5
_GROUPS = 32  # of a head's group norms


@dataclass(frozen=True)
class HeadShape:
    """What of neck and head is read from the shapes of their weights.

    Attributes:
        channels: of the pyramid.
        head: of the head's own convolutions.
        depth: convolutions of each of its branches.
        columns: of the class scores, one of which may be of no class.
        bins: of the distribution of each side's distance.
        kept: how many of their probabilities tell how good a box is.
        hidden: channels of what judges that.
    """

    channels: int
    head: int
    depth: int
    columns: int
    bins: int
    kept: int
    hidden: int


class ConvGroup(nn.Module):
    """A convolution of 3 with group norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(_GROUPS, outputs)

    def forward(self, x: Tensor) -> Tensor:
        # of nn.GroupNorm, a group of a single value is refused, such as one channel of one place
        norm = self.gn
        x = torch.group_norm(self.conv(x), norm.num_groups, norm.weight, norm.bias, norm.eps)
        return x.relu()


class Plain(nn.Module):
    """A convolution with bias, under the name that a wrapper gave it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Pyramid(nn.Module):
    """C3, C4 and C5 -> P3 to P7; the last two are made of the one before, without a ReLU."""

    def __init__(self, inputs: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(Plain(each, channels, 1) for each in inputs)
        strides = [1] * len(inputs) + [2] * (len(STRIDES) - len(inputs))
        self.fpn_convs = nn.ModuleList(Plain(channels, channels, 3, stride) for stride in strides)

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for fine in reversed(range(len(laterals) - 1)):
            coarse = F.interpolate(laterals[fine + 1], scale_factor=2.0, mode="nearest")
            laterals[fine] = laterals[fine] + coarse
        levels: list[Tensor] = []
        for index, conv in enumerate(self.fpn_convs):
            levels.append(conv(laterals[index] if index < len(laterals) else levels[-1]))
        return levels


class Scale(nn.Module):
    """A factor of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Integral(nn.Module):
    """What each bin of a distance stands for, in strides."""

    project: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(bins).float())


class Head(nn.Module):
    """Levels -> for each, class scores (N, A, C) in [0, 1] and distances (N, A, 4) in pixels."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.channels, *[shape.head] * shape.depth]
        pairs = list(pairwise(widths))
        self.cls_convs = nn.ModuleList(ConvGroup(*pair) for pair in pairs)
        self.reg_convs = nn.ModuleList(ConvGroup(*pair) for pair in pairs)
        self.gfl_cls = nn.Conv2d(shape.head, shape.columns, 3, padding=1)
        self.gfl_reg = nn.Conv2d(shape.head, 4 * shape.bins, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.reg_conf = nn.Sequential(
            nn.Conv2d(4 * (shape.kept + 1), shape.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(shape.hidden, 1, 1),
        )
        self.integral = Integral(shape.bins)

    def forward(self, levels: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        made = []
        for level, scale, stride in zip(levels, self.scales, STRIDES, strict=True):
            scores, _, shares = self._level(level, scale)
            steps = (shares * self.integral.project.reshape(-1, 1, 1)).sum(2)
            made.append((_as_rows(scores), _as_rows(steps * stride)))
        return made

    def distributions(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What is trained: scores (N, A, C) and logits (N, A, 4, bins) of all levels' places."""
        pairs = zip(levels, self.scales, strict=True)
        made = [self._level(level, scale) for level, scale in pairs]
        scores = torch.cat([_as_rows(level) for level, _, _ in made], 1)
        logits = torch.cat([_as_rows(level.flatten(1, 2)) for _, level, _ in made], 1)
        return scores, logits.reshape(*logits.shape[:2], 4, self.shape.bins)

    def _level(self, level: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Of a level, scores (N, C, H, W), logits (N, 4, bins, H, W) and their softmax."""
        height, width = level.shape[2:]
        classes = sides = level
        for conv in self.cls_convs:
            classes = conv(classes)
        for conv in self.reg_convs:
            sides = conv(sides)
        logits = scale(self.gfl_reg(sides)).reshape(-1, 4, self.shape.bins, height, width)
        shares = logits.softmax(2)
        highest = shares.topk(self.shape.kept, 2).values
        known = torch.cat([highest, highest.mean(2, keepdim=True)], 2)
        quality = self.reg_conf(known.reshape(-1, 4 * (self.shape.kept + 1), height, width))
        return self.gfl_cls(classes).sigmoid() * quality.sigmoid(), logits, shares


class Detector(nn.Module):
    """Images (N, 3, H, W) -> what :class:`Head` makes."""

    def __init__(self, structure: Structure, shape: HeadShape) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"body": Backbone(structure)})
        self.neck = Pyramid(structure.channels[-LATERALS:], shape.channels)
        self.bbox_head = Head(shape)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = self.backbone["body"](images)
        return self.bbox_head(self.neck(maps[-LATERALS:]))  # type: ignore[no-any-return]  # nn.Module's call is untyped


class Decode(nn.Module):
    """The results of all levels -> boxes (N, K, 4) in pixels and class scores (N, K, C).

    The K places of the largest scores, the surest first; all in their order where there are no
    more. ``classes`` are the first columns, the others are of no class. A place's centre is its
    number times the stride, without half a step, as in mmdetection 2.
    """

    centres: Tensor

    def __init__(self, image_size: tuple[int, int], classes: int, candidates: int | None) -> None:
        super().__init__()
        self.classes = classes
        centres = torch.cat([centres_of(image_size, stride) for stride in STRIDES])
        self.candidates = candidates if candidates and candidates < len(centres) else None
        self.register_buffer("centres", centres)

    def forward(self, levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        scores = torch.cat([level[0] for level in levels], 1)[..., : self.classes]
        sides = torch.cat([level[1] for level in levels], 1)
        centres = self.centres
        if self.candidates is not None:
            best = best_rows(scores.amax(2), self.candidates)
            scores, sides = rows_at(scores, best), rows_at(sides, best)
            centres = F.embedding(best, centres)
        return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], 2), scores


def read_head(shapes: Mapping[str, tuple[int, ...]]) -> HeadShape:
    """The neck and head that weights of these names and shapes belong to.

    Raises:
        KeyError, IndexError, ValueError: a weight is missing, or its shape cannot be.
    """
    head = "bbox_head."
    depth = sum(f"{head}cls_convs.{index}.conv.weight" in shapes for index in range(100))
    hidden, judged = shapes[f"{head}reg_conf.0.weight"][:2]
    sides = shapes[f"{head}gfl_reg.weight"][0]
    shape = HeadShape(
        channels=shapes["neck.lateral_convs.0.conv.weight"][0],
        head=shapes[f"{head}gfl_cls.weight"][1],
        depth=depth,
        columns=shapes[f"{head}gfl_cls.weight"][0],
        bins=sides // 4,
        kept=judged // 4 - 1,
        hidden=hidden,
    )
    right = not sides % 4 and not judged % 4 and 0 < shape.kept <= shape.bins
    if not right or shape.head % _GROUPS or shape.columns < 1:
        raise ValueError(f"sides {sides}, judged {judged}, channels {shape.head}")
    return shape


def _as_rows(level: Tensor) -> Tensor:
    """(N, V, H, W) -> (N, H W, V)."""
    return level.flatten(2).transpose(1, 2)


def centres_of(image_size: tuple[int, int], stride: int) -> Tensor:
    """Of a level's places, (A, 2) as x, y in pixels, row by row."""
    rows, columns = (torch.arange(-(-side // stride)) * stride for side in image_size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], 2).reshape(-1, 2).float()
