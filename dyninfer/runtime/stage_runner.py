"""What runs the stages of a route, and what comes of a batch that walked it: shapes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy.typing as npt

from dyninfer.engines.base import HostRead
from dyninfer.errors import EngineRunError
from dyninfer.routing.policy import DecisionPoint
from dyninfer.spans import Span
from dyninfer.types import Float32Array, Int64Array

Arrays = Mapping[str, npt.NDArray[Any]]


class Batched(Protocol):
    """A tensor whose first axis is the batch."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of all axes."""
        ...


T = TypeVar("T", bound=Batched)


class StageRunner(Protocol[T]):
    """How stages run and rows move; ``T`` is a tensor where they run."""

    def feed(self, image_input: str, rows: Int64Array, /) -> T:
        """Prepared images of these rows of the batch, (rows, 3, H, W); or of all its rows."""
        ...

    def run(self, stage: str, tensors: Mapping[str, T], /) -> Mapping[str, T]:
        """A stage's outputs by name; ``tensors`` hold its inputs among others."""
        ...

    def gather(self, place: str, tensors: Mapping[str, T], rows: Int64Array, /) -> Mapping[str, T]:
        """Rows of tensors as a smaller batch; ``place`` differs at every place of a plan."""
        ...

    def read(self, tensors: Mapping[str, T], rows: Int64Array | None, /) -> Mapping[str, HostRead]:
        """Send tensors, or some rows of each, to the host."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """A context: what is asked for in it may run beside what follows, which needs it not."""
        ...


class Signal(NamedTuple):
    """What was said of the images that came to a decision: (N,) easiness or (N, branches)."""

    point: DecisionPoint
    rows: Sequence[int]
    values: Float32Array


class Group(NamedTuple):
    """The images of a batch that took one way.

    ``rows`` are their positions in the batch; ``outputs`` are arrays with one row for each, and
    may be views into memory that the runner uses again: copy what must outlive it. ``origin`` is
    how they came here, for :attr:`BatchResult.retreat`.
    """

    way: int
    rows: Sequence[int]
    outputs: Arrays
    origin: Any = None


@dataclass
class BatchResult:
    """What a batch produced: groups by way, signals, and times.

    ``easiness`` is (N,) float32, NaN where no router ran; the last router that saw an image
    counts. ``spans`` are the stages that ran, gathers and read-backs, none of which overlap.
    ``failures`` are what kept images from the ways that the policy sent them, with their rows:
    those took the way of the last exit that had worked.
    """

    easiness: Float32Array
    groups: list[Group] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    retreat: Retreat | None = None


Retreat = Callable[[Group, Sequence[int], EngineRunError], Sequence[Group]]
"""Let images of a group, by their positions in it, leave by an earlier exit instead.

For outputs that turn out to be broken when they are used. Those of the result's other groups, and
of earlier retreats, are not valid afterwards. Raises the error where there is no such exit.
"""


class Failure(NamedTuple):
    """An engine that failed, and the rows of the batch that went without it."""

    error: EngineRunError
    rows: Sequence[int]


@dataclass(frozen=True)
class Trace:
    """Every way of every image of a batch.

    Attributes:
        signals: of each decision, (N,) easiness or (N, branches); None where nothing makes it.
        ways: outputs (N, ...) of each way by name.
        stages: outputs (N, ...) of the stages that were to be kept, by stage and name.
    """

    signals: tuple[Float32Array | None, ...]
    ways: tuple[Arrays, ...]
    stages: Mapping[str, Arrays]
