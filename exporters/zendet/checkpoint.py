"""A ZenDet checkpoint: the backbone alone, or a whole detector of mmdetection 2."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from dyninfer.errors import CheckpointError
from dyninfer.exporters.weights import Naming, find_weights, load_strictly
from dyninfer.exporters.zendet.backbone import Backbone
from dyninfer.exporters.zendet.detector import Detector, read_head
from dyninfer.exporters.zendet.stages import Model
from dyninfer.search.structure import Structure

_BODY = "backbone.body."
_NAMING = Naming(
    family="ZenDet",
    first="block_list.",
    own=re.compile(rf"((?:[^.]+\.)*?)(?:{re.escape(_BODY)})?block_list\.0\.conv1\.weight"),
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
    if any(name.startswith(_OF_DETECTORS) for name in state):
        if "block_list.0.conv1.weight" in state:
            state = {_place(name): tensor for name, tensor in state.items()}
        return _load_detector(path, structure, state), weights.notes
    state = {name.removeprefix(_BODY): tensor for name, tensor in state.items()}
    with torch.device("meta"):
        backbone = Backbone(structure)
    _load(path, backbone, state, f"a backbone of {structure}")
    return backbone, weights.notes


def _load_detector(path: Path, structure: Structure, state: dict[str, Tensor]) -> Detector:
    try:
        shape = read_head({name: tuple(tensor.shape) for name, tensor in state.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path} has a neck or a head that is not GFLV2's ({error}); only GFLV2 is exported, "
            "or the backbone alone"
        ) from None
    with torch.device("meta"):
        detector = Detector(structure, shape)
    state = {_BINS: torch.arange(shape.bins).float(), **state}
    _load(path, detector, state, f"a GFLV2 detector on a backbone of {structure}")
    return detector


def _load(path: Path, model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    counts = [each for each in model.state_dict() if each.endswith(".num_batches_tracked")]
    state = {**dict.fromkeys(counts, torch.tensor(0)), **state}  # which some leave out
    try:
        load_strictly(model, state, name, _HINT)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _place(name: str) -> str:
    """Of a backbone that is its detector's own, without a wrapper."""
    return f"{_BODY}{name}" if name.startswith("block_list.") else name
