"""The two stages of a bundle: images to proposals, and proposals to boxes and class scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dyninfer.bundle.manifest import Task
from dyninfer.exporters.best_rows import best_rows, rows_at
from dyninfer.exporters.family import SourceStage, TorchStage
from dyninfer.exporters.faster_rcnn.conventions import CODE_SCALE, Conventions
from dyninfer.exporters.faster_rcnn.model import FasterRCNN, fold
from dyninfer.exporters.faster_rcnn.proposals import Proposals, clip, decode, large_enough
from dyninfer.exporters.faster_rcnn.regions import RegionMaps

BODY, HEAD, IMAGES = "body", "head", "images"
MAPS = ("p2", "p3", "p4", "p5")


class BodyStage(nn.Module):
    """Images (N, 3, H, W) -> P2 to P5, proposals (N, R, 4) in pixels, objectness (N, R, 1)."""

    inputs = (IMAGES,)
    outputs = (*MAPS, "proposals", "objectness")

    def __init__(self, model: FasterRCNN, proposals: Proposals) -> None:
        super().__init__()
        self.model, self.proposals = model, proposals

    def of(self, model: FasterRCNN) -> BodyStage:
        """The same stage of another model."""
        return BodyStage(model, self.proposals)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.neck(self.model.backbone(images))
        return (*maps, *self.proposals(self.model.rpn_head(maps)))


class Decode(nn.Module):
    """Logits (N, R, C') and codes (N, R, B, 4) -> boxes (N, K, 4), class scores (N, K, C).

    They are those of the K surest pairs of a region and a class, the surest first. A region has a
    box of its own for each class, so a row has a score for one class alone. ``columns`` are the
    places of the C classes among the logits.
    """

    code_scale: Tensor
    limits: Tensor
    columns: Tensor
    boxes: Tensor

    def __init__(
        self,
        model: FasterRCNN,
        image_size: tuple[int, int],
        columns: Sequence[int],
        candidates: int | None,
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.candidates, self.conventions = candidates, conventions
        structure = model.structure
        behind_background = conventions.background_first and structure.boxes < structure.columns
        boxes = [each - behind_background if structure.boxes > 1 else 0 for each in columns]
        self.register_buffer("code_scale", torch.tensor(CODE_SCALE))
        height, width = image_size
        self.register_buffer("limits", torch.tensor([width, height, width, height]).float())
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("boxes", torch.tensor(boxes))

    def forward(
        self, logits: Tensor, codes: Tensor, proposals: Tensor, objectness: Tensor
    ) -> tuple[Tensor, Tensor]:
        classes = len(self.columns)
        scores = logits.softmax(2).index_select(2, self.columns)
        scores = scores * (objectness > 0).to(scores.dtype)
        flat = scores.flatten(1)
        count = flat.shape[1] if self.candidates is None else min(self.candidates, flat.shape[1])
        best = best_rows(flat, count)
        sure = rows_at(flat.unsqueeze(2), best)
        region = torch.div(best, classes, rounding_mode="trunc")
        kind = best - region * classes
        per_class = codes.index_select(2, self.boxes).flatten(1, 2)
        moved = decode(
            rows_at(proposals, region),
            rows_at(per_class, best) * self.code_scale,
            both_limits=self.conventions.least_scale,
        )
        boxes = clip(moved, self.limits)
        kept = large_enough(boxes, self.conventions.least_box).unsqueeze(2)
        one = (kind.unsqueeze(2) == torch.arange(classes)).to(scores.dtype)
        return boxes, one * (sure * kept)


class HeadStage(nn.Module):
    """What :class:`BodyStage` makes -> boxes (N, K, 4) in pixels, class scores (N, K, C)."""

    inputs = BodyStage.outputs
    outputs = Task.DETECT.outputs

    def __init__(self, model: FasterRCNN, regions: RegionMaps, decode: Decode) -> None:
        super().__init__()
        self.model, self.regions, self.decode = model, regions, decode

    def of(self, model: FasterRCNN) -> HeadStage:
        """The same stage of another model."""
        return HeadStage(model, self.regions, self.decode)

    def forward(
        self, p2: Tensor, p3: Tensor, p4: Tensor, p5: Tensor, proposals: Tensor, objectness: Tensor
    ) -> tuple[Tensor, Tensor]:
        regions = self.regions((p2, p3, p4, p5), proposals)
        logits, codes = self.model.roi_head["bbox_head"](regions)
        return self.decode(logits, codes, proposals, objectness)  # type: ignore[no-any-return]  # untyped torch


AnyStage = BodyStage | HeadStage


def build_stages(
    model: FasterRCNN,
    image_size: tuple[int, int],
    columns: Sequence[int],
    proposals: int,
    candidates: int | None,
    conventions: Conventions,
) -> dict[str, AnyStage]:
    """Both stages of a model for images of ``image_size`` (height, width)."""
    found = Proposals(image_size, proposals, conventions)
    decode = Decode(model, image_size, columns, candidates, conventions)
    return {
        BODY: BodyStage(model, found).eval(),
        HEAD: HeadStage(model, RegionMaps(conventions), decode).eval(),
    }


def fold_stages(stages: Mapping[str, SourceStage]) -> dict[str, SourceStage]:
    """Stages of one model whose batch norms are in the convolutions before them."""
    modules = {}
    for name, stage in stages.items():
        assert isinstance(stage, TorchStage)  # of this family's source_stages
        assert isinstance(stage.module, AnyStage)
        modules[name] = stage.module
    folded = fold(modules[BODY].model)
    return {name: TorchStage(module.of(folded).eval()) for name, module in modules.items()}
