"""A ZenDet checkpoint: the backbone alone, or a whole detector of mmdetection 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dyninfer.errors import CheckpointError
from dyninfer.exporters.weights import Naming, find_weights, load_strictly
from dyninfer.exporters.zendet.backbone import Backbone
from dyninfer.exporters.zendet.detector import Detector, read_head
from dyninfer.exporters.zendet.stages import Model
from dyninfer.search.structure import Structure

BODY = "backbone.body."
_NAMING = Naming(
    family="ZenDet",
    first="block_list.",
    own=re.compile(rf"((?:[^.]+\.)*?)(?:{re.escape(BODY)})?block_list\.0\.conv1\.weight"),
)
_OF_DETECTORS = ("neck.", "bbox_head.")
_BINS = "bbox_head.integral.project"
_HINT = "give the structure text that the checkpoint was trained with"


def load_model(path: Path, structure: Structure) -> tuple[Model, tuple[str, ...]]:
    """The model of a checkpoint, unfolded, in float32, and lines on where its weights were found.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are not of this structure.
    """
    weights = find_weights(path, _NAMING)
    state = weights.state
    if not is_detector(state):
        state = {name.removeprefix(BODY): tensor for name, tensor in state.items()}
    elif "block_list.0.conv1.weight" in state:
        state = {_place(name): tensor for name, tensor in state.items()}
    try:
        return model_of(structure, state), weights.notes
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def model_of(structure: Structure, state: Mapping[str, Tensor]) -> Model:
    """The model of weights by its parameters' names, unfolded, in float32.

    Raises:
        CheckpointError: they are not of this structure, or one is not finite.
    """
    if not is_detector(state):
        with torch.device("meta"):
            backbone = Backbone(structure)
        _load(backbone, state, f"a backbone of {structure}")
        return backbone
    try:
        shape = read_head({name: tuple(tensor.shape) for name, tensor in state.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"the neck or the head is not GFLV2's ({error}); only GFLV2 is exported, or the "
            "backbone alone"
        ) from None
    with torch.device("meta"):
        detector = Detector(structure, shape)
    state = {_BINS: torch.arange(shape.bins).float(), **state}
    _load(detector, state, f"a GFLV2 detector on a backbone of {structure}")
    return detector


def is_detector(names: Iterable[str]) -> bool:
    """Whether these are not a backbone's alone."""
    return any(name.startswith(_OF_DETECTORS) for name in names)


def _load(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    counts = [each for each in model.state_dict() if each.endswith(".num_batches_tracked")]
    state = {**dict.fromkeys(counts, torch.tensor(0)), **state}  # which some leave out
    load_strictly(model, state, name, _HINT)


def _place(name: str) -> str:
    """Of a backbone that is its detector's own, without a wrapper."""
    return f"{BODY}{name}" if name.startswith("block_list.") else name
