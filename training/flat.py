"""All parameters as one vector, so that a step is a few operations instead of thousands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(parameters: Sequence[torch.nn.Parameter]) -> torch.nn.Parameter:
    """Move parameters, and their gradients, into one vector each, of which they become views.

    Optimising hundreds of small tensors one by one would cost as much as the backward pass.
    """
    flat = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    values, gradients = (torch.split(t, sizes) for t in (flat.detach(), flat.grad))
    for parameter, value, slope in zip(parameters, values, gradients, strict=True):
        parameter.data = value.view(parameter.shape)
        parameter.grad = slope.view(parameter.shape)
    return flat


def gradient(flat: torch.nn.Parameter) -> Tensor:
    """The gradient of what :func:`flatten` returned; it always has one."""
    assert flat.grad is not None
    return flat.grad
