"""The stages of a bundle: a predictor, and the classifier at each resolution."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from dyninfer.exporters.drnet.model import EPSILON, Norm, ResNet
from dyninfer.exporters.drnet.resize import Resize

IMAGES, PREDICTOR = "images", "predictor"


def classifier_name(resolution: int) -> str:
    """What the stage of a resolution is called."""
    return f"classifier_{resolution}"


class ResolutionStage(nn.Module):
    """A model at one resolution: normalised crops (N, 3, h, w) -> scores or logits (N, C).

    ``chosen`` is the set of its batch norms, ``shortcut`` that of the projections'.
    """

    def __init__(self, model: ResNet, resize: Resize, chosen: int = 0, shortcut: int = 0) -> None:
        super().__init__()
        self.model, self.resize = model, resize
        self.chosen, self.shortcut = chosen, shortcut

    def forward(self, images: Tensor) -> Tensor:
        resized = self.resize(images)
        return self.model(resized, self.chosen, self.shortcut)  # type: ignore[no-any-return]  # untyped torch

    def norm(self, parent: nn.Module, name: str) -> Norm:
        """The set that is used of a batch norm, by its place in :meth:`ResNet.convolutions`."""
        chosen = self.shortcut if isinstance(parent, nn.Sequential) else self.chosen
        return getattr(parent, name).bn[chosen]  # type: ignore[no-any-return]  # untyped torch

    def folded(self) -> ResolutionStage:
        """The same without batch norms: each goes into the convolution before it."""
        model = copy.deepcopy(self.model)
        for parent, conv, norms in model.convolutions():
            setattr(parent, conv, _fused(getattr(parent, conv), self.norm(parent, norms)))
            setattr(parent, norms, _Nothing())
        return ResolutionStage(model, self.resize, self.chosen, self.shortcut).eval()


class _Nothing(nn.Module):
    """In the place of a batch norm that its convolution has taken in."""

    def forward(self, x: Tensor, _chosen: int) -> Tensor:
        return x


def _fused(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    scale, shift = scale_and_shift(norm)
    conv.weight = nn.Parameter((conv.weight.double() * scale.reshape(-1, 1, 1, 1)).float(), False)
    conv.bias = nn.Parameter(shift.float(), False)
    return conv


def scale_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """What a set does to each channel: a factor and a term (C,) each, in float64."""
    scale = norm.weight.double() / (norm.running_var.double() + EPSILON).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale
