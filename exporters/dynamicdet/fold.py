"""Batch norm, RepConv branches and implicit layers folded into the convolutions beside them.

All arithmetic is in float64, so that folding adds no error beyond the last rounding.
"""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.model import DynamicDetector


def fold(model: DynamicDetector) -> DynamicDetector:
    """A copy of the model that computes the same with convolutions and SiLU only."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    _fold_children(folded)
    return folded


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, layers.ConvBnSiLU):
            setattr(module, name, nn.Sequential(_merge(child.conv, child.bn).float(), nn.SiLU()))
        elif isinstance(child, layers.RepConv):
            setattr(module, name, nn.Sequential(_merge_branches(child).float(), nn.SiLU()))
        elif isinstance(child, layers.Detect):
            _fold_implicit(child)
        elif isinstance(child, layers.CBFuse):
            setattr(module, name, PyramidFuse(child.split_index))
        else:
            _fold_children(child)


class PyramidFuse(layers.CBFuse):
    """What CBFuse computes, from coarse to fine: far fewer values are resized and added.

    Nearest-neighbour upsampling by whole factors can be done in steps, and distributes over the
    sum: up4(a) + up2(b) + c = up2(up2(a) + b) + c. Whole factors are also what ONNX Runtime
    upsamples fast.
    """

    def forward(self, *inputs: tuple[Tensor, ...] | Tensor) -> Tensor:
        """``inputs`` as of :class:`dyninfer.exporters.dynamicdet.layers.CBFuse`."""
        target = inputs[-1]
        assert isinstance(target, Tensor)
        chosen = [splits[i] for splits, i in zip(inputs[:-1], self.split_index, strict=True)]
        finer = sorted([*chosen, target], key=lambda tensor: tensor.shape[2])
        if not all(_whole_factor(a, b) for a, b in pairwise(finer)):
            return super().forward(*inputs)
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


def _merge(conv: nn.Module, bn: nn.Module) -> nn.Conv2d:
    """A bias-free convolution and the norm behind it as one convolution in float64."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv.double(), bn.double())


def _merge_branches(block: layers.RepConv) -> nn.Conv2d:
    """The 1x1 and identity branches are 3x3 kernels that are zero but for their centre."""
    merged, points = _merge(*block.rbr_dense), [_merge(*block.rbr_1x1)]
    if block.rbr_identity is not None:
        width = merged.out_channels
        identity = nn.Conv2d(width, width, 1, bias=False).eval().requires_grad_(False)
        nn.init.dirac_(identity.weight)
        points.append(_merge(identity, block.rbr_identity))
    assert merged.bias is not None
    for point in points:
        assert point.bias is not None
        merged.weight += F.pad(point.weight, (1, 1, 1, 1))
        merged.bias += point.bias
    return merged


def _fold_implicit(detect: layers.Detect) -> None:
    """The identity used: im * (W (x + ia) + b) = (im W) x + im (W ia + b)."""
    for level, (conv, ia, im) in enumerate(zip(detect.m, detect.ia, detect.im, strict=True)):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        assert isinstance(ia, layers.ImplicitA)
        assert isinstance(im, layers.ImplicitM)
        conv.double()
        factor = im.implicit.double().reshape(-1)
        conv.bias += conv.weight[:, :, 0, 0] @ ia.implicit.double().reshape(-1)
        conv.bias *= factor
        conv.weight *= factor[:, None, None, None]
        conv.float()
        detect.ia[level] = nn.Identity()
        detect.im[level] = nn.Identity()
