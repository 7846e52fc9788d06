"""Stages on NumPy arrays: what a route runs on where there are no engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def gather(self, _name: str, tensor: npt.NDArray[Any], rows: Int64Array) -> npt.NDArray[Any]:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return tensor[rows]

    def read(self, tensor: npt.NDArray[Any], rows: Int64Array | None) -> HostRead:
        """See :class:`dyninfer.runtime.stage_runner.StageRunner`."""
        return OnHost(tensor if rows is None else tensor[rows])
