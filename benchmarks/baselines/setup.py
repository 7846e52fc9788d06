"""The baselines that there are, by name; what a contender is, and what its process opens."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError
from dyninfer.runtime.engine_choice import EngineChoice

Arrays = dict[str, npt.NDArray[Any]]
Action = Callable[[], object]
THRESHOLD, BIAS = "threshold_", "bias"
"""Inputs of a single graph that force a way: of every exit but the last, and of a chooser."""
ABOVE_ALL = 2.0
"""A threshold that no easiness reaches."""
FORCING_BIAS = 1e9
"""What makes a chooser's score the largest."""


DYNINFER = "dyninfer"
SINGLE_GRAPH = "single-graph-if"
LAST_EXIT = "always-last-exit"
IN_PYTORCH = frozenset({"pytorch-eager", "pytorch-folded", "torch-compile"})
ALL = "all"
ONNX_SUFFIX = ".onnx"

NAMES: Mapping[str, str] = {
    SINGLE_GRAPH: "the same stages in one ONNX graph with an If, ONNX Runtime's default options",
    LAST_EXIT: "the last exit or branch alone, without routers, choosers and earlier heads; "
    "dyninfer's own engines",
    "naive": "the same stages in ordinary ONNX Runtime sessions, NumPy arrays between them",
    "pytorch-eager": "the PyTorch model as it comes from the checkpoint",
    "pytorch-folded": "the PyTorch model, batch norm and branches folded into the convolutions",
    "torch-compile": "torch.compile of the folded PyTorch model, compile time not counted",
}
"""Name -> what it is. Any ONNX detector can stand beside them, by its path."""


class Kind(str, Enum):
    """A way to run the detector: a baseline's name, or what is not one of :data:`NAMES`."""

    DYNINFER = "dyninfer"
    SINGLE_GRAPH = "single-graph-if"
    LAST_EXIT = "always-last-exit"
    NAIVE = "naive"
    EAGER = "pytorch-eager"
    FOLDED = "pytorch-folded"
    COMPILED = "torch-compile"
    FOREIGN = "foreign"

    @property
    def calls(self) -> tuple[CallKind, ...]:
        """The kinds of call that it has."""
        bound = (Kind.DYNINFER, Kind.SINGLE_GRAPH, Kind.LAST_EXIT)
        return (CallKind.API, CallKind.ENGINES) if self in bound else (CallKind.API,)


class CallKind(str, Enum):
    """What belongs to one run.

    ``api`` is the ordinary call, which checks its input and hands out arrays of the caller's own.
    ``engines`` leaves outputs in buffers that are used again, so nothing is copied on either side.
    """

    API = "api"
    ENGINES = "engines"


@dataclass(frozen=True)
class Setup:
    """What a contender's process opens.

    Attributes:
        kind: of the contender.
        inputs: an ``.npz`` file with the prepared image inputs by name, (1, 3, H, W) float32.
        model: the bundle's folder, or the ONNX file of a single graph or another's detector.
        engine: device, provider and, for the bundle's own engines, backend and precision.
        stage_files: for ``naive``: stage -> its ONNX file.
        sources: for PyTorch: files and folders in which the bundle's sources are looked for.
        cores: how many PyTorch may use.
    """

    kind: Kind
    inputs: str
    model: str
    engine: EngineChoice
    cores: int
    stage_files: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


class Contender(Protocol):
    """An opened bundle or model; ``note`` is what a reader of its times should know.

    Those that make no difference between the kinds of call have no :meth:`action` of their own.

    ``way`` is the one that an image is made to take, whatever a router or chooser says of it; a
    contender that has one way alone takes that.
    """

    note: str = ""

    def action(self, way: int, call: CallKind) -> Action:  # noqa: ARG002  # see above
        """A function that runs one image; everything that need not be timed is done before."""
        return lambda: self.outputs(way)

    def outputs(self, way: int) -> Arrays:
        """What it finds in the image: arrays (1, ...) by name."""
        ...


def read_inputs(setup: Setup) -> Arrays:
    """The prepared image inputs that every contender of a contest gets."""
    with np.load(setup.inputs) as arrays:
        return dict(arrays)


def is_onnx_file(name: str) -> bool:
    """Whether a baseline is meant as a detector's file."""
    return name.lower().endswith(ONNX_SUFFIX)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The baselines that are meant, each once, in the order they were named.

    Args:
        names: keys of :data:`NAMES`, ``all`` of them, paths that end in ``.onnx``.

    Raises:
        InputError: a name is unknown (the nearest known one is told), or a file is not there.
    """
    chosen: list[str] = []
    for name in names:
        if is_onnx_file(name):
            if not Path(name).is_file():
                raise InputError(f"{name} is not a file; expected the path of an ONNX detector")
        elif name != ALL and name not in NAMES:
            near = difflib.get_close_matches(name, [*NAMES, ALL], n=1, cutoff=0)
            raise InputError(
                f"baseline {name!r} is unknown, nearest is {near[0]!r}; expected "
                f"{', '.join(NAMES)}, {ALL}, or the path of an {ONNX_SUFFIX} file"
            )
        chosen += NAMES if name == ALL else [name]
    return tuple(dict.fromkeys(chosen))
