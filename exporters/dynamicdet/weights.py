"""The weights in a checkpoint, as trainings, wrappers and profilers leave them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyninfer.errors import CheckpointError
from dyninfer.exporters.dynamicdet.layers import BATCH_NORM_EPS
from dyninfer.exporters.safe_load import load_checkpoint

# where weights stand in what trainings save; an average of the weights comes before themselves
_PLACES = (
    *("ema", "ema_state_dict", "model_ema", "model", "model_state_dict", "state_dict"),
    *("module", "net", "network", "weights"),
)
_DEEPEST = 3
_OWN = re.compile(r"((?:[^.]+\.)*?)model_b\.\d")
# buffers of profilers (thop) and of averaging (torch.optim.swa_utils)
_FOREIGN = re.compile(r"(.*\.)?(total_ops|total_params|n_averaged)")
_NEUTRAL = {"ia": 0.0, "im": 1.0}  # values by which an implicit layer changes nothing


@dataclass(frozen=True)
class Weights:
    """Tensors by the names of the published checkpoints, and lines for the user on their origin."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_weights(path: Path) -> Weights:
    """The weights of a checkpoint: its ``ema``, else its ``model`` or the like, else the file.

    What wrappers put before every name (``module.`` of DataParallel, ``_orig_mod.`` of
    torch.compile) is taken off; what profilers count is left out.

    Raises:
        CheckpointError: the file cannot be read safely or holds no weights of this family.
    """
    content = load_checkpoint(path)
    found = list(_find(content))
    if not found:
        raise CheckpointError(f"{path} is not a DynamicDet checkpoint: {_instead(content)}")
    place, weights = found[0]
    _check(path, weights)
    state = _unwrapped(weights)
    other = next((name for name, _ in found if not name.startswith("ema") and name != place), None)
    notes: tuple[str, ...] = ()
    if place.startswith("ema") and other and not _are_equal(state, _unwrapped(dict(found)[other])):
        notes = (
            f"weights: {place!r} of {path.name}, the training's moving average; the public scripts "
            f"read {other!r}, which differs",
        )
    return Weights(state, notes)


def _find(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict that holds weights of this family, with the names that lead to it."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(name, str) and _OWN.match(name) for name in content):
        yield place, content
    elif depth < _DEEPEST:
        for name in _PLACES:
            inner = f"{place}.{name}" if place else name
            yield from _find(content.get(name), inner, depth + 1)


def _instead(content: Any) -> str:
    """What a file holds that has no weights of this family."""
    for name in _PLACES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return _instead(content[name])
    if not isinstance(content, Mapping) or not content:
        return f"it holds {type(content).__name__} where a dict of tensors should be"
    shown = ", ".join(str(name)[:80] for name in list(content)[:3])
    return (
        f"no parameter starts with 'model_b.' (it has {shown}{', ...' if len(content) > 3 else ''})"
    )


def _unwrapped(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights by the names that the model gave them."""
    before = next(match[1] for name in weights if (match := _OWN.match(str(name))))
    named = {str(name).removeprefix(before): value for name, value in weights.items()}
    return {name: value for name, value in named.items() if not _FOREIGN.fullmatch(name)}


def _are_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        isinstance(other[name], Tensor) and torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )


def _check(path: Path, weights: Mapping[str, Any]) -> None:
    """Plain arrays of real numbers, none of which claims more of them than are stored."""
    wrong = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path} holds entries that are not tensors among its weights: {', '.join(wrong[:5])}"
        )
    for name, tensor in weights.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_complex() or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: {name} is {tensor.dtype}, {tensor.layout}, on {tensor.device}; "
                "expected dense real numbers"
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, more values than the file holds"
            )


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
