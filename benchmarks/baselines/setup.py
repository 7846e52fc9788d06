"""What a contender is, and what its process needs to open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dyninfer.runtime.engine_choice import EngineChoice

Arrays = dict[str, npt.NDArray[Any]]
Action = Callable[[], object]
THRESHOLD, BIAS = "threshold_", "bias"
"""Inputs of a single graph that force a way: of every exit but the last, and of a chooser."""
ABOVE_ALL = 2.0
"""A threshold that no easiness reaches."""
FORCING_BIAS = 1e9
"""What makes a chooser's score the largest."""


class Kind(str, Enum):
    """A way to run the detector; a baseline that is opened in one way has its name here."""

    DYNINFER = "dyninfer"
    IF_OWN_POOL = "if-own-pool"
    IF_SHARED_POOL = "if-shared-pool"
    LAST_EXIT = "always-last-exit"
    NAIVE = "naive"
    EAGER = "pytorch-eager"
    FOLDED = "pytorch-folded"
    COMPILED = "torch-compile"
    FOREIGN = "foreign"

    @property
    def is_pytorch(self) -> bool:
        """Whether PyTorch runs it."""
        return self in (Kind.EAGER, Kind.FOLDED, Kind.COMPILED)

    @property
    def calls(self) -> tuple[CallKind, ...]:
        """The kinds of call that it has."""
        bound = (Kind.DYNINFER, Kind.IF_OWN_POOL, Kind.IF_SHARED_POOL, Kind.LAST_EXIT)
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
        config: for PyTorch: the configuration that was given to the export, if any.
        cores: how many PyTorch may use.
    """

    kind: Kind
    inputs: str
    model: str
    engine: EngineChoice
    cores: int
    stage_files: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    config: str | None = None


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
