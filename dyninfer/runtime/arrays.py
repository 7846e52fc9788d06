"""Stages on NumPy arrays: what a route runs on where there are no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from dyninfer.engines.base import HostRead, OnHost
from dyninfer.runtime.stage_runner import Arrays
from dyninfer.types import Int64Array

RunArrays = Callable[[str, Arrays], Arrays]
"""(stage, tensors that hold its inputs among others) -> its outputs by name."""


@dataclass(frozen=True)
class ArrayRunner:
    """A batch as NumPy arrays: a :class:`dyninfer.runtime.stage_runner.StageRunner`.

    Attributes:
        images: prepared, (N, 3, H, W) for every image input that is read.
        run: runs a stage.
    """

    images: Mapping[str, npt.NDArray[Any]]
    run: RunArrays

    def feed(self, image_input: str, rows: Int64Array) -> npt.NDArray[Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        images = self.images[image_input]
        return images if len(rows) == len(images) else images[rows]

    def gather(self, _place: str, tensors: Arrays, rows: Int64Array) -> Arrays:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return {name: tensor[rows] for name, tensor in tensors.items()}

    def read(self, tensors: Arrays, rows: Int64Array | None) -> Mapping[str, HostRead]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return {n: OnHost(t if rows is None else t[rows]) for n, t in tensors.items()}

    def aside(self) -> AbstractContextManager[None]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return nullcontext()
