"""The router itself: features, one linear layer, a sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dyninfer.exporters.router.features import Features
from dyninfer.types import Float64Array


@dataclass(frozen=True)
class LinearGain:
    """A linear estimate of what an image gains by going on: larger is harder.

    The weights (F,) are for features as they are, not standardised.
    """

    weights: Float64Array
    bias: float

    def __call__(self, features: npt.ArrayLike) -> Float64Array:
        """(N, F) -> (N,)."""
        return np.asarray(np.asarray(features, np.float64) @ self.weights + self.bias, np.float64)

    def scaled(self, shift: float, scale: float) -> LinearGain:
        """(gain - shift) / scale, as another linear estimate."""
        return LinearGain(self.weights / scale, (self.bias - shift) / scale)


class FittedRouter(nn.Module):
    """Outputs of a body -> easiness (N, 1) = sigmoid(-gain)."""

    centre: Tensor

    def __init__(self, features: Features, centre: Float64Array, gain: LinearGain) -> None:
        """``centre`` (F,) is subtracted first, which keeps float32 sums of many features exact."""
        super().__init__()
        self.features = features
        offset = float(gain(centre[None])[0])
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32))
        self.linear = nn.Linear(len(centre), 1)
        with torch.no_grad():
            self.linear.weight.copy_(-torch.tensor(gain.weights)[None])
            self.linear.bias.fill_(-offset)
        self.eval().requires_grad_(False)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The body's outputs, as the features want them -> (N, 1) in (0, 1)."""
        features: Tensor = self.features(*tensors)
        easiness: Tensor = torch.sigmoid(self.linear(features - self.centre))
        return easiness
