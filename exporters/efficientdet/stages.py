"""The stages of a bundle: images in, boxes and class scores out, through one file or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.bundle.manifest import Task
from dyninfer.exporters.best_rows import best_rows, rows_at
from dyninfer.exporters.efficientdet.fold import FoldedEfficientDet, fold
from dyninfer.exporters.efficientdet.model import EfficientDet
from dyninfer.exporters.efficientdet.structure import FIRST_LEVEL
from dyninfer.exporters.family import SourceStage, TorchStage
from dyninfer.types import Float64Array

BODY, IMAGES = "body", "images"
Model = EfficientDet | FoldedEfficientDet


class Decode(nn.Module):
    """Logits (N, A, C) and codes (N, A, 4) -> boxes (N, K, 4) in pixels, class scores (N, K, C').

    The K anchors of the largest logits are taken first, the surest first; all, in their order,
    where there are no more. A code (tx, ty, tw, th) of an anchor of the centre (x, y) and the size
    (w, h) is the centre (x + tx w, y + ty h) and the size (w e^tw, h e^th). ``columns`` are the
    logits' places of the C' classes, -1 for one that is never found; None for all in their order.
    """

    centre: Tensor
    size: Tensor
    half_size: Tensor
    places: Tensor | None
    known: Tensor | None

    def __init__(
        self, anchors_yxyx: Float64Array, candidates: int, columns: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.candidates = candidates if candidates < len(anchors_yxyx) else None
        low, high = (torch.from_numpy(anchors_yxyx[:, part].copy()) for part in ([1, 0], [3, 2]))
        self.register_buffer("centre", ((low + high) / 2).float())
        self.register_buffer("size", (high - low).float())
        self.register_buffer("half_size", ((high - low) / 2).float())
        places = None if columns is None else torch.tensor(columns)
        known = None if places is None or places.min() >= 0 else (places >= 0).float()
        self.register_buffer("places", None if places is None else places.clamp(min=0))
        self.register_buffer("known", known)

    def forward(self, logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        centre, size, half = self.centre, self.size, self.half_size
        if self.candidates is not None:
            best = best_rows(logits.amax(2), self.candidates)
            logits, codes = rows_at(logits, best), rows_at(codes, best)
            centre, size, half = (F.embedding(best, table) for table in (centre, size, half))
        if self.places is not None:
            logits = logits.index_select(2, self.places)
        scores = logits.sigmoid()
        if self.known is not None:
            scores = scores * self.known
        middle = codes[..., :2] * size + centre
        reach = codes[..., 2:].exp() * half
        return torch.cat([middle - reach, middle + reach], 2), scores


class BodyStage(nn.Module):
    """A whole EfficientDet, as it is or folded, with its decode."""

    outputs = Task.DETECT.outputs

    def __init__(self, model: Model, decode: Decode, image_input: str = IMAGES) -> None:
        super().__init__()
        self.model, self.decode, self.inputs = model, decode, (image_input,)

    def of(self, model: Model) -> BodyStage:
        """The same stage of another model."""
        return BodyStage(model, self.decode, *self.inputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = self.model(images)
        return self.decode(logits, codes)  # type: ignore[no-any-return]  # untyped torch


class FeatureStage(nn.Module):
    """Backbone and BiFPN: images -> a map (N, C, H, W) of each level, which ``outputs`` names."""

    def __init__(self, model: Model, outputs: tuple[str, ...], image_input: str) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, (image_input,), outputs

    def of(self, model: Model) -> FeatureStage:
        """The same stage of another model."""
        return FeatureStage(model, self.outputs, *self.inputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.features(images))


class HeadStage(nn.Module):
    """Both heads and the decode, on the maps that :class:`FeatureStage` makes."""

    outputs = Task.DETECT.outputs

    def __init__(self, model: Model, inputs: tuple[str, ...], decode: Decode) -> None:
        super().__init__()
        self.model, self.inputs, self.decode = model, inputs, decode

    def of(self, model: Model) -> HeadStage:
        """The same stage of another model."""
        return HeadStage(model, self.inputs, self.decode)

    def forward(self, *levels: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = self.model.predict(list(levels))
        return self.decode(logits, codes)  # type: ignore[no-any-return]  # untyped torch


AnyStage = BodyStage | FeatureStage | HeadStage


def build_stages(
    model: Model, decode: Decode, name: str, image_input: str, *, levels: int | None
) -> dict[str, AnyStage]:
    """An EfficientDet as the stage ``name``; or, with ``levels``, as that and ``<name>_head``.

    ``levels`` is how many maps its BiFPN has, which the first stage ends in then.
    """
    if levels is None:
        return {name: BodyStage(model, decode, image_input).eval()}
    maps = tuple(f"{name}_p{FIRST_LEVEL + level}" for level in range(levels))
    return {
        name: FeatureStage(model, maps, image_input).eval(),
        head_of(name): HeadStage(model, maps, decode).eval(),
    }


def head_of(name: str) -> str:
    """The stage that makes results of the maps of the stage ``name``."""
    return f"{name}_head"


def fold_stages(stages: Mapping[str, SourceStage]) -> dict[str, SourceStage]:
    """Stages whose batch norms and fusion weights are in the convolutions beside them.

    A model that several stages have is folded once.
    """
    folded: dict[Model, Model] = {}
    found: dict[str, SourceStage] = {}
    for name, stage in stages.items():
        assert isinstance(stage, TorchStage)  # of an EfficientDet's source
        module = stage.module
        assert isinstance(module, AnyStage)
        model = module.model
        assert isinstance(model, EfficientDet)
        if model not in folded:
            folded[model] = fold(model)
        found[name] = TorchStage(module.of(folded[model]).eval())
    return found
