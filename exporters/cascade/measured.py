"""What a detector gave for a few pictures, and what its outputs' shapes and values tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dyninfer.exporters.cascade.options import Match
from dyninfer.exporters.cascade.original import Outputs, read_part
from dyninfer.types import AnyArray, Float64Array

ROWS_KEPT = 300  # of an output whose number of rows changes from image to image
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (8, 16, 32, 64, 128), (16, 32))
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Table:
    """An output read as rows of numbers; see :class:`Part` for ``axes``. None: rows change."""

    name: str
    axes: str
    rows: int | None
    width: int

    @property
    def varies(self) -> bool:
        """Whether the number of rows depends on the picture."""
        return self.rows is None

    @property
    def anchors(self) -> int:
        """How many rows are given on."""
        return ROWS_KEPT if self.rows is None else self.rows


@dataclass(frozen=True)
class Measured:
    """What a detector gave for each of some pictures of ``size`` (height, width).

    ``named`` is the number of classes that file or user name, or None. ``declared`` are the shapes
    of the outputs that the file declares, None for an axis that it leaves open.
    """

    samples: tuple[Outputs, ...]
    size: tuple[int, int]
    named: int | None
    declared: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def outputs(self) -> Outputs:
        """What it gave for the first picture."""
        return self.samples[0]

    def values(self, name: str) -> AnyArray:
        """All numbers of an output, for all pictures."""
        return np.concatenate([np.ravel(outputs[name]) for outputs in self.samples])

    def integral(self, name: str) -> bool:
        """Whether an output holds whole numbers."""
        values = self.values(name)
        return bool(values.dtype.kind in "iu" or (np.isfinite(values) & (values % 1 == 0)).all())

    def in_unit(self, name: str) -> bool:
        """Whether an output holds numbers from 0 to 1; rounding of half precision is allowed."""
        values = self.values(name)
        return bool(((values >= -1e-3) & (values <= 1 + 1e-3)).all())

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every output; None for an axis that changes or is declared as open.

        The first axis of what has several is no such: it is that of the images, or of rows.
        """
        found = {}
        for name in self.outputs:
            all_shapes = {sample[name].shape for sample in self.samples}
            if len({len(shape) for shape in all_shapes}) != 1:
                continue
            found[name] = tuple(
                sizes[0] if len(set(sizes)) == 1 else None
                for sizes in zip(*all_shapes, strict=True)
            )
        return found

    def rows_of(self, name: str, axis: int) -> int | None:
        """Number of rows on an axis of a list; None where it changes or is declared as open."""
        declared = self.declared.get(name, ())
        opened = axis < len(declared) and declared[axis] is None
        return None if opened or axis == 0 else self.shapes[name][axis]

    def tables(self, widths: range) -> Iterator[Table]:
        """Outputs of floating-point numbers that are rows of so many of them."""
        for name, shape in self.shapes.items():
            if self.outputs[name].dtype.kind != "f":
                continue
            one, last = shape[:1] == (1,), shape[-1] if shape else None
            if last is None or last not in widths:
                continue
            if len(shape) == 2:
                yield Table(name, "av", None, last)
            elif len(shape) == 3 and one:
                yield Table(name, "nav", self.rows_of(name, 1), last)
            elif len(shape) == 4 and one and shape[2] == 1:
                yield Table(name, "na1v", self.rows_of(name, 1), last)
            elif len(shape) == 4 and one and shape[1] == 1:
                yield Table(name, "n1av", self.rows_of(name, 2), last)

    @property
    def grids(self) -> dict[int, tuple[int, ...]]:
        """Number of cells -> the strides of the levels that have so many."""
        return {cells(self.size, strides): strides for strides in reversed(STRIDES)}

    @property
    def counts(self) -> set[int]:
        """Numbers of boxes that a dense output may have: one or three for every cell."""
        return {n * count for n in (1, 3) for count in self.grids}

    def boxes(self, match: Match) -> Float64Array:
        """The four numbers of every box of all pictures, as the detector gives them."""
        found = [
            np.concatenate([read_part(part, sample) for part in match.boxes], 1)
            for sample in self.samples
        ]
        return np.concatenate(found)


def cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Number of cells of all levels together; what a stride does not divide is rounded up."""
    return sum(math.prod(-(-side // stride) for side in size) for stride in strides)


def called(name: str, pattern: str) -> bool:
    """Whether an output's name has one of these words in it."""
    return re.search(pattern, name, re.IGNORECASE) is not None
