"""Which of the things in a DynamicDet checkpoint are the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyninfer.errors import CheckpointError
from dyninfer.exporters.safe_load import load_checkpoint

_PARALLEL_PREFIX = "module."


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint: its ``ema``, else its ``model``, else the file itself.

    A ``module.`` prefix, left by DataParallel training, is taken off.

    Raises:
        CheckpointError: the file cannot be read safely or holds no weights of this family.
    """
    state = _weights(path, load_checkpoint(path))
    if all(name.startswith(_PARALLEL_PREFIX) for name in state):
        state = {name.removeprefix(_PARALLEL_PREFIX): value for name, value in state.items()}
    if not any(name.startswith("model_b.") for name in state):
        shown = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"{path} is not a DynamicDet checkpoint: no parameter starts with 'model_b.' "
            f"(it has {shown}, ...)"
        )
    return state


def _weights(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and ("model" in content or "ema" in content):
        ema = content.get("ema")
        content = ema if ema is not None else content.get("model")
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__} where its weights should be; "
            "expected a dict of tensors under 'ema' or 'model', or alone"
        )
    wrong = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path} holds entries that are not tensors among its weights: {', '.join(wrong[:5])}"
        )
    for name, value in content.items():
        _check_tensor(path, str(name), value)
    return {str(name): value for name, value in content.items()}


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse what is no plain array of real numbers, or claims more of them than are stored."""
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
