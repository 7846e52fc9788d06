"""The stage of a bundle: images in, the maps of a backbone or the boxes of a detector out."""

from __future__ import annotations

from torch import Tensor, nn

from dyninfer.bundle.manifest import Task
from dyninfer.exporters.zendet.backbone import Backbone
from dyninfer.exporters.zendet.detector import Decode, Detector

BODY, IMAGES = "body", "images"
Model = Backbone | Detector


class BackboneStage(nn.Module):
    """Images (N, 3, H, W) -> C2 to C5."""

    inputs, outputs = (IMAGES,), Task.FEATURES.outputs

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model(images)  # type: ignore[no-any-return]  # nn.Module's call is untyped


class DetectorStage(nn.Module):
    """Images (N, 3, H, W) -> boxes (N, K, 4) in pixels, class scores (N, K, C)."""

    inputs, outputs = (IMAGES,), Task.DETECT.outputs

    def __init__(self, model: Detector, decode: Decode) -> None:
        super().__init__()
        self.model, self.decode = model, decode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(self.model(images))  # type: ignore[no-any-return]  # nn.Module's call is untyped


AnyStage = BackboneStage | DetectorStage


def build_stage(
    model: Model, image_size: tuple[int, int], classes: int, candidates: int | None
) -> AnyStage:
    """The stage of a model; the last two are of a detector alone."""
    if isinstance(model, Backbone):
        return BackboneStage(model).eval()
    return DetectorStage(model, Decode(image_size, classes, candidates)).eval()
