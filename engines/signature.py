"""What a stage's file and its runs say of tensors, compared with what the manifest says of them.

Addresses of rows are computed from the manifest's shapes and types, and a manifest comes with the
files: a stage that makes something else must never be believed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dyninfer.bundle.manifest import BATCH_AXIS, Stage, TensorSpec
from dyninfer.errors import EngineBuildError, EngineRunError
from dyninfer.plain_text import counted

EXPORT_AGAIN = "export the bundle again"
BUILD_AGAIN = "build it again"
MAX_ROW = 2**40
"""Values that a tensor may have for an image: with any batch, their number fits into 64 bits."""


class Shaped(Protocol):
    """What has a shape and an element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""


@dataclass(frozen=True)
class FileTensor:
    """An input or output as its file declares it.

    ``dtype`` is NumPy's name where a stage may have the type, otherwise whatever the library calls
    it. A size of None is known only in a run, and so is the number of axes where ``shape`` is None.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} {self.dtype}"
        sizes = ("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({', '.join(sizes)})"

    def may_be(self, spec: TensorSpec) -> bool:
        """Whether a run can make, or take, what the manifest describes."""
        if self.dtype != spec.dtype:
            return False
        return self.shape is None or (
            len(self.shape) == len(spec.shape)
            and all(
                found is None or isinstance(wanted, str) or found == wanted
                for found, wanted in zip(self.shape, spec.shape, strict=True)
            )
        )


def check_signature(
    what: str,
    stage: Stage,
    inputs: Sequence[FileTensor],
    outputs: Sequence[FileTensor],
    advice: str = EXPORT_AGAIN,
) -> None:
    """Compare a file's inputs and outputs with the manifest's.

    Args:
        what: the file, for messages.
        stage: what the manifest says of it.
        inputs: what the file says.
        outputs: what the file says.
        advice: what to do where they differ.

    Raises:
        EngineBuildError: names, types, numbers of axes or fixed sizes differ, or the stage is one
            that the runtime cannot cut into rows.
    """
    _check_stage(what, stage)
    found = [sorted(tensor.name for tensor in side) for side in (inputs, outputs)]
    wanted = [sorted(spec.name for spec in side) for side in (stage.inputs, stage.outputs)]
    if found != wanted:
        raise EngineBuildError(
            f"{what} has inputs {found[0]} and outputs {found[1]}, the manifest says {wanted[0]} "
            f"and {wanted[1]}; {advice}"
        )
    declared = {tensor.name: tensor for tensor in (*inputs, *outputs)}
    for spec in (*stage.inputs, *stage.outputs):
        if not declared[spec.name].may_be(spec):
            raise EngineBuildError(
                f"{what} has {declared[spec.name]}, the manifest says {spec}; {advice}"
            )


def _check_stage(what: str, stage: Stage) -> None:
    """Refuse a stage that no rows can be taken from, whatever its file says."""
    specs = (*stage.inputs, *stage.outputs)
    twice = [name for name, count in Counter(spec.name for spec in specs).items() if count > 1]
    if twice:  # ONNX Runtime does not write an output that is an input, and says nothing
        raise EngineBuildError(
            f"{what} has two inputs or outputs called {twice[0]!r}, expected names of their own; "
            f"{EXPORT_AGAIN}"
        )
    if not stage.inputs:
        raise EngineBuildError(f"{what} has no input, expected at least one; {EXPORT_AGAIN}")
    for spec in specs:
        sizes = [axis for axis in spec.shape if not isinstance(axis, str)]
        batched = spec.shape[:1] == (BATCH_AXIS,) and BATCH_AXIS not in spec.shape[1:]
        possible = min(sizes, default=0) >= 0
        if not batched or not possible or math.prod(max(size, 1) for size in sizes) > MAX_ROW:
            raise EngineBuildError(
                f"{what} has {spec}, expected '{BATCH_AXIS}' as the first axis and no other, and "
                f"sizes from 0 up with at most {MAX_ROW} values; {EXPORT_AGAIN}"
            )


def check_made(
    stage: str, specs: Sequence[TensorSpec], made: Mapping[str, Shaped], batch: int
) -> None:
    """Compare what a run has made with the manifest; axes of one name have one size.

    Raises:
        EngineRunError: a type, a number of axes or a size differs.
    """
    sizes = {BATCH_AXIS: batch}
    for spec in specs:
        shape, dtype = made[spec.name].shape, made[spec.name].dtype
        fits = len(shape) == len(spec.shape) and all(
            size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
            for size, axis in zip(shape, spec.shape, strict=True)
        )
        if not fits or dtype != spec.dtype:
            raise EngineRunError(
                f"stage {stage!r} made {spec.name} {dtype} {shape} of {counted(batch, 'image')}, "
                f"the manifest says {spec}; {EXPORT_AGAIN}"
            )
