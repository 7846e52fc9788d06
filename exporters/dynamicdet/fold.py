"""Batch norm, RepConv branches and implicit layers folded into the convolutions beside them.

All arithmetic is in float64, so that folding adds no error beyond the last rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.model import DynamicDetector


def fold(model: DynamicDetector) -> DynamicDetector:
    """A copy of the model that computes the same with convolutions and SiLU only."""
    folded = copy.deepcopy(model)
    _fold_children(folded)
    return folded.eval().requires_grad_(False)


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, layers.ConvBnSiLU):
            setattr(module, name, nn.Sequential(_merge(child.conv, child.bn), nn.SiLU()))
        elif isinstance(child, layers.RepConv):
            setattr(module, name, nn.Sequential(_merge_branches(child), nn.SiLU()))
        elif isinstance(child, layers.Detect):
            _fold_implicit(child)
        elif isinstance(child, layers.CBFuse):
            setattr(module, name, PyramidFuse(child.split_index))
        else:
            _fold_children(child)


class PyramidFuse(nn.Module):
    """What CBFuse computes, from coarse to fine: far fewer values are resized and added.

    Nearest-neighbour upsampling by whole factors can be done in steps, and distributes over the
    sum: up4(a) + up2(b) + c = up2(up2(a) + b) + c. Whole factors are also what ONNX Runtime
    upsamples fast.
    """

    def __init__(self, split_index: Sequence[int]) -> None:
        super().__init__()
        self.split_index = tuple(split_index)

    def forward(self, *inputs: tuple[Tensor, ...] | Tensor) -> Tensor:
        """``inputs`` as of :class:`dyninfer.exporters.dynamicdet.layers.CBFuse`."""
        target = inputs[-1]
        assert isinstance(target, Tensor)
        chosen = [splits[i] for splits, i in zip(inputs[:-1], self.split_index, strict=True)]
        finer = sorted([*chosen, target], key=lambda tensor: tensor.shape[2])
        if not all(_whole_factor(a, b) for a, b in pairwise(finer)):
            return layers.CBFuse(self.split_index)(*inputs)  # type: ignore[no-any-return]  # untyped torch
        total = finer[0]
        for tensor in finer[1:]:
            factor = _whole_factor(total, tensor)
            if factor > 1:
                total = F.interpolate(total, scale_factor=float(factor), mode="nearest")
            total = total + tensor
        return total


def _whole_factor(coarse: Tensor, fine: Tensor) -> int:
    """By what both axes of ``coarse`` grow to those of ``fine``; 0 where it is no whole number."""
    factor = int(fine.shape[2] // coarse.shape[2])
    exact = fine.shape[2] == coarse.shape[2] * factor and fine.shape[3] == coarse.shape[3] * factor
    return factor if exact else 0


def _scaled(weight: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias (float64) of a bias-free convolution followed by ``bn``.

    y = gamma (w x - mean) / sqrt(var + eps) + beta.
    """
    assert bn.running_var is not None
    assert bn.running_mean is not None
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return weight.double() * scale[:, None, None, None], bias


def _convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        like.kernel_size,  # type: ignore[arg-type]  # torch widens its own attributes
        like.stride,  # type: ignore[arg-type]  # as above
        like.padding,  # type: ignore[arg-type]  # as above
    )
    conv.weight.data = weight.float()
    conv.bias = nn.Parameter(bias.float())
    return conv


def _merge(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    return _convolution(conv, *_scaled(conv.weight, bn))


def _merge_branches(block: layers.RepConv) -> nn.Conv2d:
    """The 1x1 and identity branches are 3x3 kernels that are zero but for their centre."""
    dense, dense_bn = block.rbr_dense
    point, point_bn = block.rbr_1x1
    assert isinstance(dense, nn.Conv2d)
    assert isinstance(dense_bn, nn.BatchNorm2d)
    assert isinstance(point, nn.Conv2d)
    assert isinstance(point_bn, nn.BatchNorm2d)
    weight, bias = _scaled(dense.weight, dense_bn)
    point_weight, point_bias = _scaled(point.weight, point_bn)
    weight, bias = weight + F.pad(point_weight, (1, 1, 1, 1)), bias + point_bias
    if block.rbr_identity is not None:
        identity = torch.eye(weight.shape[0])[:, :, None, None]
        identity_weight, identity_bias = _scaled(identity, block.rbr_identity)
        weight, bias = weight + F.pad(identity_weight, (1, 1, 1, 1)), bias + identity_bias
    return _convolution(dense, weight, bias)


def _fold_implicit(detect: layers.Detect) -> None:
    """The identity used: im * (W (x + ia) + b) = (im W) x + im (W ia + b)."""
    for level, (conv, ia, im) in enumerate(zip(detect.m, detect.ia, detect.im, strict=True)):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        assert isinstance(ia, layers.ImplicitA)
        assert isinstance(im, layers.ImplicitM)
        factor = im.implicit.double().reshape(-1)
        weight = conv.weight.double()
        shift = (weight[:, :, 0, 0] * ia.implicit.double().reshape(1, -1)).sum(1)
        bias = factor * (shift + conv.bias.double())
        detect.m[level] = _convolution(conv, weight * factor[:, None, None, None], bias)
        detect.ia[level] = nn.Identity()
        detect.im[level] = nn.Identity()
