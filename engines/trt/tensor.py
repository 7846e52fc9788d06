"""Tensors of the TensorRT backend: on the device, or on the host until a stage reads them."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import HostRead, OnHost
from dyninfer.types import Int64Array

if TYPE_CHECKING:
    from dyninfer.engines.trt.workspace import TrtWorkspace


@dataclass(frozen=True)
class DevicePlace:
    """Where a tensor's values are: an address in a workspace, and a name for host copies."""

    pointer: int
    workspace: TrtWorkspace
    key: Hashable


class TrtTensor:
    """Values with a shape. The first axis is the batch.

    A tensor over a host array (``array``) moves to the device when a stage first reads it, once.
    """

    __slots__ = ("array", "dtype", "place", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        place: DevicePlace | None,
        array: npt.NDArray[Any] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.place = place
        self.array = array

    @classmethod
    def over_array(cls, array: npt.NDArray[Any]) -> TrtTensor:
        """A tensor over a host array, which is copied only if it is not C-contiguous."""
        array = np.ascontiguousarray(array)
        return cls(array.shape, array.dtype, None, array)

    @property
    def pointer(self) -> int:
        """The address of a tensor that is on the device."""
        assert self.place is not None
        return self.place.pointer

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def numpy(self) -> npt.NDArray[Any]:
        """The values on the host."""
        return self.to_host().numpy()

    def to_host(self, rows: Int64Array | None = None) -> HostRead:
        """See :meth:`dyninfer.engines.base.Tensor.to_host`."""
        if self.array is not None:
            return OnHost(self.array if rows is None else self.array[rows])
        assert self.place is not None  # a tensor has an array or a place
        return self.place.workspace.read(self, rows)


def row_runs(rows: Int64Array) -> list[tuple[int, int, int]]:
    """Runs of rows (K,) that lie side by side where they come from, as few as there are.

    Each is its first row in the source, its first in the target, and their number: [2, 3, 4, 7]
    is (2, 0, 3) and (7, 3, 1).
    """
    if not len(rows):
        return []
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    bounds = zip([0, *breaks], [*breaks, len(rows)], strict=True)
    return [(int(rows[start]), start, stop - start) for start, stop in bounds]
