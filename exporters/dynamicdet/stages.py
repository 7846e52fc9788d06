"""The four stages of a bundle as modules that are ready to be exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.bundle.manifest import EASINESS, Task
from dyninfer.exporters.best_rows import best_rows, rows_at
from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.model import DynamicDetector, Features
from dyninfer.exporters.dynamicdet.topology import IMAGE, Part, Ref
from dyninfer.exporters.parity import AVERAGES

IMAGES = "images"


def tensor_name(ref: Ref) -> str:
    """Name by which a feature travels between stages: ``images`` or ``feature_24``."""
    return IMAGES if ref == IMAGE else f"feature_{ref.index}"


class ModelStage(nn.Module):
    """A stage, and the names of the tensors that go in and come out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class FirstStage(ModelStage):
    """Images -> the features that other stages read and, last, the router's averages."""

    def __init__(self, model: DynamicDetector) -> None:
        super().__init__()
        self.model = model
        refs = model.topology.read_by(Part.HEAD, Part.SECOND)
        self.handed_on = [ref for ref in refs if ref != IMAGE]
        pooled = [] if model.router is None else [AVERAGES]
        self.inputs, self.outputs = (IMAGES,), (*map(tensor_name, self.handed_on), *pooled)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.model.first(images)
        outputs = [features[ref] for ref in self.handed_on]
        if self.model.router is not None:
            outputs.append(self.model.pooled(features))
        return tuple(outputs)


class RouterStage(ModelStage):
    """Averages (N, K) -> easiness (N,) in [0, 1]."""

    inputs, outputs = (AVERAGES,), (EASINESS,)

    def __init__(self, router: layers.Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, pooled: Tensor) -> Tensor:
        return self.router(pooled).squeeze(1)  # type: ignore[no-any-return]  # untyped torch


class Decode(nn.Module):
    """Raw predictions of all levels -> boxes (N, K, 4) in pixels and class scores (N, K, C).

    s = sigmoid(p); centre = (2 s_xy - 0.5 + cell) stride; size = (2 s_wh)^2 anchor; a class's
    score is its probability times the objectness (YOLOv5 and YOLOv7's head). A model with a
    single class never trains the class probability: there the objectness alone counts.
    The K = ``candidates`` anchors with the largest scores, the surest first; without, or where
    there are no more, all: levels from fine to coarse, in each anchor-major, then row, then column.
    """

    cell: Tensor
    stride: Tensor
    anchor: Tensor

    def __init__(
        self,
        detect: layers.Detect,
        strides: Sequence[int],
        image_size: tuple[int, int],
        candidates: int | None = None,
    ) -> None:
        super().__init__()
        self.classes = detect.classes
        self.anchors = detect.anchor_grid.shape[2]
        cells, scales, sizes = [], [], []
        for stride, grid in zip(strides, detect.anchor_grid, strict=True):
            height, width = image_size[0] // stride, image_size[1] // stride
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            cell = torch.stack([x, y], 2).reshape(1, -1, 2).expand(self.anchors, -1, -1)
            cells.append(cell.reshape(-1, 2).float() - 0.5)
            scales.append(torch.full((len(cells[-1]), 1), float(stride)))
            anchor = grid.reshape(self.anchors, 1, 2).expand(-1, height * width, -1)
            sizes.append(4 * anchor.reshape(-1, 2))
        self.register_buffer("cell", torch.cat(cells))
        self.register_buffer("stride", torch.cat(scales))
        self.register_buffer("anchor", torch.cat(sizes))
        self.candidates = candidates if candidates and candidates < len(self.cell) else None

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        values = 5 + self.classes
        flat = [
            level.reshape(-1, self.anchors, values, level.shape[2] * level.shape[3])
            .permute(0, 1, 3, 2)
            .reshape(-1, self.anchors * level.shape[2] * level.shape[3], values)
            for level in levels
        ]
        raw, cell, stride, half_anchor = torch.cat(flat, 1), self.cell, self.stride, self.anchor / 2
        if self.candidates is not None:
            best = best_rows(self._confidence(raw), self.candidates)
            raw = rows_at(raw, best)
            cell, stride, half_anchor = (F.embedding(best, t) for t in (cell, stride, half_anchor))
        s = raw.sigmoid()
        centre = (2 * s[..., 0:2] + cell) * stride
        half = s[..., 2:4] * s[..., 2:4] * half_anchor
        boxes = torch.cat([centre - half, centre + half], 2)
        objectness = s[..., 4:5]
        return boxes, objectness if self.classes == 1 else objectness * s[..., 5:]

    def _confidence(self, raw: Tensor) -> Tensor:
        """The largest class score (N, A) of every anchor."""
        objectness = raw[..., 4].sigmoid()
        return objectness if self.classes == 1 else objectness * raw[..., 5:].amax(2).sigmoid()


class HeadStage(ModelStage):
    """Features -> boxes and class scores, by the first head or by second backbone and head."""

    outputs = Task.DETECT.outputs

    def __init__(
        self,
        model: DynamicDetector,
        part: Part,
        image_size: tuple[int, int],
        candidates: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.part = part
        self.reads = model.topology.read_by(Part.HEAD if part is Part.HEAD else Part.SECOND)
        self.inputs = tuple(map(tensor_name, self.reads))
        detect, strides = model.detect(part), model.plan.strides_of(part)
        self.decode = Decode(detect, strides, image_size, candidates)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        features: Features = dict(zip(self.reads, inputs, strict=True))
        raw = self.model.head if self.part is Part.HEAD else self.model.second
        return self.decode(raw(features))  # type: ignore[no-any-return]  # untyped torch


def build_stages(
    model: DynamicDetector, image_size: tuple[int, int], candidates: int | None = None
) -> dict[str, ModelStage]:
    """The stages of a model by name, in the order they run.

    ``image_size`` is height and width, multiples of the largest stride; ``candidates`` is how many
    of their anchors the heads give on, None for all.
    """
    stages: dict[str, ModelStage] = {"first": FirstStage(model)}
    if model.router is not None:
        stages["router"] = RouterStage(model.router)
    stages["head"] = HeadStage(model, Part.HEAD, image_size, candidates)
    stages["second"] = HeadStage(model, Part.HEAD2, image_size, candidates)
    return {name: stage.eval() for name, stage in stages.items()}
