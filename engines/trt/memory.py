"""Memory of the device and page-locked memory of the host, used again and again; tensors in it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import HostRead, OnHost, check_rows
from dyninfer.engines.trt.cuda import ALIGNMENT, Cuda, HostBytes
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.errors import EngineRunError
from dyninfer.types import Int64Array

if TYPE_CHECKING:
    from dyninfer.engines.trt.workspace import TrtWorkspace

LARGE = 1 << 20
LARGE_STEP = 2 << 20


def rounded(size: int) -> int:
    """Size of the block for ``size`` bytes: never 0, and in steps, so that blocks fit again."""
    step = LARGE_STEP if size > LARGE else ALIGNMENT
    return max(-(-size // step), 1) * step


@dataclass(frozen=True, eq=False)
class Block:
    """Memory that CUDA gave; ``host`` is None on the device."""

    pointer: int
    size: int
    host: HostBytes | None = None


class Pool:
    """Blocks of memory, shared by all stages and callers of a backend.

    What is given back is kept for the next who asks, so that a steady state allocates nothing.
    Safe to use from several threads, inside :meth:`Cuda.active`. ``pinned`` is for page-locked
    memory of the host instead of the device's.
    """

    def __init__(self, cuda: Cuda, *, pinned: bool) -> None:
        self._cuda = cuda
        self._pinned = pinned
        self._free: list[Block] = []
        self._lock = threading.Lock()
        self._closed = False
        self.allocated_bytes = 0

    def take(self, size: int) -> Block:
        """A block of at least ``size`` bytes: the smallest free one that fits, or a new one.

        Raises:
            EngineRunError: there is not enough memory, even after idle blocks were freed.
        """
        size = rounded(size)
        with self._lock:
            fitting = [block for block in self._free if block.size >= size]
            if fitting:
                block = min(fitting, key=lambda free: free.size)
                self._free.remove(block)
                return block
            try:
                block = self._allocate(size)
            except EngineRunError:
                if not self._free:
                    raise
                self._free_idle()
                block = self._allocate(size)
            self.allocated_bytes += size
            return block

    def give(self, block: Block) -> None:
        """Give back a block that no work under way uses."""
        with self._lock:
            self._free.append(block)
            if self._closed:
                self._free_idle()

    def close(self) -> None:
        """Free all blocks that were given back, and from now on each that is."""
        with self._lock:
            self._closed = True
            self._free_idle()

    def _allocate(self, size: int) -> Block:
        try:
            if self._pinned:
                host = self._cuda.allocate_host(size)
                return Block(host.ctypes.data, size, host)
            return Block(self._cuda.allocate(size), size)
        except EngineRunError as error:
            what = "page-locked host" if self._pinned else "device"
            raise EngineRunError(
                f"{size / 2**20:.1f} MiB of {what} memory could not be allocated ({error}); this "
                f"detector holds {self.allocated_bytes / 2**20:.1f} MiB; lower max_batch, or run "
                "fewer threads"
            ) from error

    def _free_idle(self) -> None:
        with Freeing() as freeing:
            while self._free:
                block = self._free.pop()
                self.allocated_bytes -= block.size
                if block.host is not None:
                    freeing.run(self._cuda.free_host, block.host)
                else:
                    freeing.run(self._cuda.free, block.pointer)


class Arena:
    """Named buffers of one caller, from a pool; grown to the largest size asked for.

    A block that was outgrown goes back when the caller's stream is done with it, for which
    ``finish`` waits.
    """

    def __init__(self, pool: Pool, finish: Callable[[], None]) -> None:
        self._pool = pool
        self._finish = finish
        self._blocks: dict[Hashable, Block] = {}

    def block(self, key: Hashable, size: int) -> Block:
        """The buffer of this name, with room for ``size`` bytes."""
        block = self._blocks.get(key)
        if block is None or block.size < size:
            if block is not None:
                self._finish()  # others may get it, on streams of theirs
            larger = self._pool.take(size)
            if block is not None:
                self._pool.give(block)
            block = self._blocks[key] = larger
        return block

    def outgrown(self, key: Hashable, size: int) -> bool:
        """Whether there is a buffer of this name that has no room for ``size`` bytes."""
        block = self._blocks.get(key)
        return block is not None and block.size < size

    def holder(self, array: HostBytes) -> Hashable | None:
        """The name of the buffer that an array lies in, if it is one of these."""
        start = array.__array_interface__["data"][0]
        for key, block in self._blocks.items():
            if block.pointer <= start and start + array.nbytes <= block.pointer + block.size:
                return key
        return None

    def close(self) -> None:
        """Give everything back; the stream must be idle."""
        while self._blocks:
            self._pool.give(self._blocks.popitem()[1])


@dataclass(slots=True, eq=False)
class DevicePlace:
    """Where a tensor's values are: an address in a block of a workspace, and a name for copies."""

    pointer: int
    workspace: TrtWorkspace
    key: Hashable
    block: Block


@dataclass(slots=True, eq=False)
class TrtTensor:
    """Values with a shape. The first axis is the batch.

    A tensor over a host array (``array``) moves to the device when a stage first reads it, once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    place: DevicePlace | None
    array: npt.NDArray[Any] | None = None

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
        return self.place.workspace.read({"": self}, rows)[""]


def row_runs(rows: Int64Array, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Runs of rows (K,) that lie side by side where they come from, as few as there are.

    Each is its first row in the source, its first in the target, and their number: [2, 3, 4, 7]
    is (2, 0, 3) and (7, 3, 1).

    Raises:
        EngineRunError: the source, of this shape, has no such rows.
    """
    if not len(rows):
        return []
    check_rows(rows, shape)
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    bounds = zip([0, *breaks], [*breaks, len(rows)], strict=True)
    return [(int(rows[start]), start, stop - start) for start, stop in bounds]
