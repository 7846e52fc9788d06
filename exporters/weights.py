"""The weights in a checkpoint, as trainings, wrappers and profilers leave them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dyninfer.errors import CheckpointError
from dyninfer.exporters.safe_load import load_checkpoint
from dyninfer.plain_text import some

# where weights stand in what trainings save; an average of the weights comes before themselves
_AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema")
_PLACES = (
    *_AVERAGES,
    *("model", "model_state_dict", "state_dict", "module", "net", "network", "weights"),
)
_DEEPEST = 3
# buffers of profilers (thop) and of averaging (torch.optim.swa_utils)
_FOREIGN = r"(.*\.)?(total_ops|total_params|n_averaged)"


@dataclass(frozen=True)
class Naming:
    """How a family's parameters are known among others.

    Attributes:
        family: what it is called in messages.
        first: how its own names start, for instance ``model_b.``.
        own: matches one of its names, wrappers' prefixes included; group 1 is what they put before.
        foreign: matches further names that are no parameters of the model.
    """

    family: str
    first: str
    own: re.Pattern[str]
    foreign: str | None = None


@dataclass(frozen=True)
class Weights:
    """Tensors by the names of the published checkpoints, and lines for the user on their origin.

    ``arch`` is what timm's training scripts call the model, if they saved it.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    arch: str | None = None


def find_weights(path: Path, naming: Naming) -> Weights:
    """The weights of a checkpoint: an average of them, else its ``model`` or the like, else itself.

    What wrappers put before every name (``module.`` of DataParallel, ``_orig_mod.`` of
    torch.compile) is taken off; what profilers count is left out.

    Raises:
        CheckpointError: the file cannot be read safely or holds no weights of this family.
    """
    content = load_checkpoint(path)
    found = list(_find(content, naming.own))
    if not found:
        reason = _instead(content, naming.first)
        article = "an" if naming.family[0] in "AEIOU" else "a"
        raise CheckpointError(f"{path} is not {article} {naming.family} checkpoint: {reason}")
    place, weights = found[0]
    _check(path, weights)
    state = _unwrapped(weights, naming)
    other = next((n for n, _ in found if not n.startswith(_AVERAGES) and n != place), None)
    notes: tuple[str, ...] = ()
    if place.startswith(_AVERAGES) and other:
        weights = dict(found)[other]
        if not _are_equal(state, _unwrapped(weights, naming)):
            notes = (
                f"weights: {place!r} of {path.name}, the training's moving average; the public "
                f"scripts read {other!r}, which differs",
            )
    arch = content.get("arch") if isinstance(content, Mapping) else None
    return Weights(state, notes, arch if isinstance(arch, str) else None)


def _find(
    content: Any, own: re.Pattern[str], place: str = "", depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict that holds weights of this family, with the names that lead to it."""
    if not isinstance(content, Mapping):
        return
    if any(isinstance(name, str) and own.match(name) for name in content):
        yield place, content
    elif depth < _DEEPEST:
        for name in _PLACES:
            inner = f"{place}.{name}" if place else name
            yield from _find(content.get(name), own, inner, depth + 1)


def _instead(content: Any, first: str) -> str:
    """What a file holds that has no weights of this family."""
    for name in _PLACES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return _instead(content[name], first)
    if not isinstance(content, Mapping) or not content:
        return f"it holds {type(content).__name__} where a dict of tensors should be"
    shown = ", ".join(str(name)[:80] for name in list(content)[:3])
    return (
        f"no parameter starts with {first!r} (it has {shown}{', ...' if len(content) > 3 else ''})"
    )


def _unwrapped(weights: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    """The weights by the names that the model gave them."""
    before = next(match[1] for name in weights if (match := naming.own.match(str(name))))
    named = {str(name).removeprefix(before): value for name, value in weights.items()}
    foreign = re.compile("|".join(filter(None, (_FOREIGN, naming.foreign))))
    return {name: value for name, value in named.items() if not foreign.fullmatch(name)}


def _are_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        isinstance(other[name], Tensor) and torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )


def _check(path: Path, weights: Mapping[str, Any]) -> None:
    """Arrays of real numbers, none of which claims more of them than are stored.

    Reading the file makes no tensors of what is sparse, quantised or without memory.
    """
    wrong = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{path} holds entries that are not tensors among its weights: {', '.join(wrong[:5])}"
        )
    for name, tensor in weights.items():
        if tensor.is_complex():
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}; expected real numbers")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, more values than the file holds"
            )


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], name: str, hint: str) -> None:
    """Fill a model that was built on the meta device with ``state``, in float32.

    Every key is used and none is missing; ``name`` says what the model is, ``hint`` what to do
    where the two do not fit.

    Raises:
        CheckpointError: keys are missing or left over, a shape does not fit, or a value is not
            finite; all are named.
    """
    _check_keys(model.state_dict(), state, name, hint)
    model.to_empty(device="cpu")
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    broken = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"parameters hold NaN or infinity: {some(broken, 5)}; the training diverged"
        )
    model.eval().requires_grad_(False)


def _check_keys(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, hint: str
) -> None:
    kinds = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} is {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    problems = [f"{len(keys)} {what}: {some(keys, 5)}" for what, keys in kinds.items() if keys]
    if problems:
        raise CheckpointError(
            f"the checkpoint does not fit {name}: parameters {'; '.join(problems)}; {hint}"
        )
