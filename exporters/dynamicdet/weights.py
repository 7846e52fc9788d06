"""What the public DynamicDet scripts leave in checkpoints, and what they leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dyninfer.exporters.dynamicdet.layers import BATCH_NORM_EPS
from dyninfer.exporters.weights import Naming, Weights, find_weights

_NAMING = Naming("DynamicDet", "model_b.", re.compile(r"((?:[^.]+\.)*?)model_b\.\d"))
_NEUTRAL = {"ia": 0.0, "im": 1.0}  # values by which an implicit layer changes nothing


def read_weights(path: Path) -> Weights:
    """As :func:`dyninfer.exporters.weights.find_weights`, of a DynamicDet."""
    return find_weights(path, _NAMING)


def complete(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict with what can be told of missing entries, and lines for the user on it.

    A convolution into which its batch norm was merged gets one that does nothing but add the bias.
    Implicit layers that are missing, or stand beside such convolutions, do nothing: what merges
    batch norms in the public code merges them, too, and leaves their entries where they are.

    Args:
        state: entries as read; they stay as they are.
        expected: of the model that the state is for; shapes alone are looked at.
    """
    state = dict(state)
    fused = 0
    for name, tensor in expected.items():
        if name.endswith(".num_batches_tracked") and name not in state:
            state[name] = torch.zeros((), dtype=torch.int64)
        if not name.endswith(".bn.weight") or name in state:
            continue
        norm, bias = name.removesuffix("weight"), f"{name.removesuffix('.bn.weight')}.conv.bias"
        if bias in state and state[bias].shape == tensor.shape:
            fused += 1
            state |= _nothing_but(norm, state.pop(bias))
    notes: tuple[str, ...] = ()
    implicit = [name for name in expected if name.endswith(".implicit")]
    if fused or not any(name in state for name in implicit):
        for name in implicit:
            state[name] = torch.full(expected[name].shape, _NEUTRAL[name.split(".")[-3]])
    if fused:
        notes = (
            f"the checkpoint is fused ({fused} convolutions have a bias and no batch norm), so its "
            "implicit layers count as folded in, as the public fuse() leaves them",
        )
    return state, notes


def _nothing_but(norm: str, bias: Tensor) -> dict[str, Tensor]:
    """A batch norm that adds ``bias``: its variance and epsilon together are 1."""
    ones = torch.ones(bias.shape)
    return {
        f"{norm}weight": ones,
        f"{norm}bias": bias,
        f"{norm}running_mean": torch.zeros(bias.shape),
        f"{norm}running_var": ones - BATCH_NORM_EPS,
    }
