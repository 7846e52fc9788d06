"""Resizing a normalised crop within a stage, by the convention of the training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.drnet.options import Convention
from dyninfer.types import Float32Array


class Resize(nn.Module):
    """Images (N, 3, h, w) -> (N, 3, size, size), bilinear without antialiasing.

    ``image_size`` is (h, w). Images that have the size already are passed on as they are.
    """

    def __init__(self, image_size: tuple[int, int], size: int, convention: Convention) -> None:
        super().__init__()
        self.image_size, self.size, self.convention = image_size, size, convention
        self.needed = image_size != (size, size)

    @property
    def scales(self) -> Float32Array:
        """(4,) of the axes, by which ONNX's ``floor(side * scale)`` is the size."""
        return np.array([1, 1, *(_scale(side, self.size) for side in self.image_size)], np.float32)

    def forward(self, images: Tensor) -> Tensor:
        if not self.needed:
            return images
        if self.convention is Convention.HALF_PIXEL:
            return F.interpolate(images, (self.size, self.size), mode="bilinear")
        return _stretched(_stretched(images, 2, self.size), 3, self.size)


def _scale(side: int, size: int) -> float:
    scale = np.float32(size / side)
    return float(scale if side * scale >= size else scale + np.spacing(scale))


def _stretched(images: Tensor, axis: int, size: int) -> Tensor:
    """One axis at ``size``, without an offset of half a pixel."""
    side = images.shape[axis]
    places = torch.arange(size, dtype=torch.float64) * side / size
    low = places.long()
    share = (places - low).to(images.dtype).reshape([-1 if n == axis else 1 for n in range(4)])
    high = (low + 1).clamp(max=side - 1)
    first, second = images.index_select(axis, low), images.index_select(axis, high)
    return first + (second - first) * share
