"""A Faster R-CNN checkpoint: whose it is, its model, and the classes of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dyninfer.bundle.inside import file_sha256
from dyninfer.errors import CheckpointError, ConfigError
from dyninfer.exporters.class_names import COCO, COCO_IDS, class_names_for, read_names
from dyninfer.exporters.faster_rcnn.conventions import Conventions, conventions_of
from dyninfer.exporters.faster_rcnn.model import FasterRCNN
from dyninfer.exporters.faster_rcnn.names import NAMING, Library, by_own_names, library_of
from dyninfer.exporters.faster_rcnn.structure import read_structure
from dyninfer.exporters.weights import find_weights, load_strictly
from dyninfer.plain_text import counted

_HINT = "only the ResNets and heads of Faster R-CNN are exported, no masks and no other layers"
_WITHOUT_EPSILON = "258fb6c6"  # torchvision's COCO_V1, which it runs with an epsilon of 0
_NO_CLASS = ("__background__", "background")


@dataclass(frozen=True)
class Loaded:
    """The model of a checkpoint, unfolded, in float32, and lines on its weights."""

    model: FasterRCNN
    library: Library
    notes: tuple[str, ...]

    @property
    def conventions(self) -> Conventions:
        """Of the library that trained it."""
        return conventions_of(self.library)


def read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights of a checkpoint by its library's names, and lines on where they were found.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights are of no Faster R-CNN.
    """
    weights = find_weights(path, NAMING)
    if any(name.startswith("bbox_head.") for name in weights.state):
        raise CheckpointError(
            f"{path} is of mmdetection 1, which counts pixels and classes another way; convert it "
            "with mmdetection's tools/model_converters/upgrade_model_version.py first"
        )
    return weights.state, weights.notes


def load_model(path: Path, *, stride_first: bool) -> Loaded:
    """The model of a checkpoint.

    ``stride_first`` has the strides in the first convolutions of bottlenecks, as Caffe's models do.

    Raises:
        CheckpointError: the file cannot be read safely, or its weights do not fit together.
    """
    named, notes = read_state(path)
    library = library_of(named)
    state = by_own_names(named, library)
    without = file_sha256(path).startswith(_WITHOUT_EPSILON)
    try:
        model = model_of(state, stride_first=stride_first, eps=0.0 if without else 1e-5)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    structure = model.structure
    if library is Library.MMDETECTION and structure.boxes == structure.columns:
        raise CheckpointError(
            f"{path} has boxes for all {structure.columns} columns of classes, as mmdetection 1 "
            "has; convert it with mmdetection's tools/model_converters/upgrade_model_version.py"
        )
    if without:
        notes = (*notes, "batch norms: with an epsilon of 0, as torchvision runs this file")
    return Loaded(model, library, notes)


def model_of(
    state: dict[str, Tensor], *, stride_first: bool = False, eps: float = 1e-5
) -> FasterRCNN:
    """The model of weights by the names here.

    Raises:
        CheckpointError: they do not fit together.
    """
    structure = read_structure({name: tuple(tensor.shape) for name, tensor in state.items()})
    with torch.device("meta"):
        model = FasterRCNN(structure, stride_first=stride_first, eps=eps)
    counts = [each for each in model.state_dict() if each.endswith(".num_batches_tracked")]
    state = {**dict.fromkeys(counts, torch.tensor(0)), **state}  # which frozen norms leave out
    load_strictly(model, state, f"a Faster R-CNN of {structure}", _HINT)
    return model


def class_columns(
    columns: int, path: Path | None, *, background_first: bool
) -> tuple[tuple[str, ...], tuple[int, ...], str]:
    """The names of the classes, the column of each, and a line on which column is of none.

    Raises:
        ConfigError: the file cannot be read or holds another number of names.
    """
    classes = columns - 1
    places = tuple(range(columns))[background_first : classes + background_first]
    names = read_names(path) if path is not None else ()
    if len(names) == columns:
        names = tuple(name for name in names if name.lower() not in _NO_CLASS)
    if classes == COCO_IDS[-1] and len(names) in (0, len(COCO)):
        names, places = names or COCO, tuple(places[number - 1] for number in COCO_IDS)
    elif path is None:
        names = class_names_for(classes, None)
    if len(names) != len(places):
        raise ConfigError(
            f"{path} holds {counted(len(read_names(path)) if path else 0, 'class name')}, but the "
            f"head has {columns} columns, one of which is of no class: expected {classes} names"
        )
    which = "first" if background_first else "last"
    return names, places, f"columns: {columns}, of which the {which} is of no class"
