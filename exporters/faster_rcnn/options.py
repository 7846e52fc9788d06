"""What a Faster R-CNN's export is told. Cheap to import, for the command line."""

from __future__ import annotations

from enum import Enum

PROPOSALS = 1000
"""How many regions are looked at, as published."""


class Style(str, Enum):
    """How a backbone was trained at first, which decides colours and where strides are.

    PyTorch's ResNets read normalised RGB and have a bottleneck's stride in its 3x3 convolution;
    Caffe's read BGR less its mean and have it in the first.
    """

    PYTORCH = "pytorch"
    CAFFE = "caffe"
