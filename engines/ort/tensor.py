"""Tensors and buffers of the ONNX Runtime backend."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import HostRead, OnHost, no_such_rows
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.ort.gpu import pinned_zeros
from dyninfer.engines.ort.library import is_ort_error, ort
from dyninfer.engines.ort.runtime import OrtDevice
from dyninfer.errors import EngineRunError
from dyninfer.foreign_errors import reason_of
from dyninfer.spans import DeviceSpan
from dyninfer.types import Int64Array

HOST = ("cpu", 0)
"""The place of values in the host's memory."""
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    10: np.dtype(np.float16),
}
"""By ONNX's numbers."""


class OrtTensor:
    """Memory on a device, seen with a shape; the owner is kept alive with it.

    ``offset`` is where the tensor starts in its owner, in elements; ``pointer`` includes it.
    """

    __slots__ = (
        "_moved",
        "_offset",
        "_owner",
        "_view",
        "dtype",
        "place",
        "pointer",
        "shape",
    )

    def __init__(
        self,
        owner: Any,
        pointer: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        place: tuple[str, int],
        offset: int = 0,
    ) -> None:
        self._owner = owner
        self._offset = offset
        self._moved: OrtTensor | None = None
        self._view: npt.NDArray[Any] | None = None
        self.pointer = pointer
        self.shape = shape
        self.dtype = dtype
        self.place = place

    @classmethod
    def over_array(cls, array: npt.NDArray[Any]) -> OrtTensor:
        """A tensor over a host array, without a copy where it is C-contiguous and aligned."""
        array = np.ascontiguousarray(array)
        if not array.flags.aligned:  # as a view into bytes may be: kernels need not cope with that
            array = array.copy()
        pointer = array.__array_interface__["data"][0]  # ctypes.data takes several times as long
        return cls(array, pointer, array.shape, array.dtype, HOST)

    @classmethod
    def over_value(cls, value: Any, device: OrtDevice) -> OrtTensor:
        """A tensor over an OrtValue that ONNX Runtime allocated, as ONNX Runtime describes it.

        Raises:
            EngineRunError: its elements are of a type that no stage may have.
        """
        on_host = value.device_name() == "cpu"
        place = HOST if on_host else device.place
        dtype = _DTYPES.get(value.element_type())
        if dtype is None:
            raise EngineRunError(f"ONNX Runtime made a {value.data_type()}, expected float32")
        return cls(value, value.data_ptr(), tuple(value.shape()), dtype, place)

    def on(self, device: OrtDevice) -> OrtTensor:
        """The tensor on the device that computes: itself, or a copy that is made once.

        So an image that several stages read travels to a GPU once, and rows of it are gathered
        there.
        """
        if self.place[0] == device.device_type:
            return self
        if self._moved is None:
            value = ort.OrtValue.ortvalue_from_numpy(self.numpy(), *device.place)
            self._moved = OrtTensor.over_value(value, device)
        return self._moved

    def renewed(self) -> None:
        """Say that new values were written to this memory: copies of the old ones are let go."""
        self._moved = None

    def as_matrix(self) -> OrtTensor:
        """The same memory with all axes but the first in one: (N, K)."""
        shape = (self.shape[0], math.prod(self.shape[1:]))
        return OrtTensor(self._owner, self.pointer, shape, self.dtype, self.place, self._offset)

    def run_of_rows(self, start: int, count: int) -> OrtTensor:
        """Rows that follow each other as a batch of their own, in the same memory.

        Raises:
            EngineRunError: the tensor has no such rows.
        """
        if not 0 <= start <= start + count <= self.shape[0]:
            raise no_such_rows(start, start + count - 1, self.shape)
        shape = (count, *self.shape[1:])
        skipped = start * math.prod(self.shape[1:])
        pointer = self.pointer + skipped * self.dtype.itemsize
        offset = self._offset + skipped
        return OrtTensor(self._owner, pointer, shape, self.dtype, self.place, offset)

    def numpy(self) -> npt.NDArray[Any]:
        """The values on the host; a view where the memory is the host's already."""
        if self._view is not None:
            return self._view
        in_host_memory = isinstance(self._owner, np.ndarray)
        values = self._owner if in_host_memory else self._owner.numpy()
        stop = self._offset + math.prod(self.shape)
        seen: npt.NDArray[Any] = values.reshape(-1)[self._offset : stop].reshape(self.shape)
        if in_host_memory:  # else it may be a copy, and old by the next time
            self._view = seen
        return seen

    def to_host(self, rows: Int64Array | None = None) -> HostRead:
        """The values, or those of some rows; every run waits for its outputs, so they are there."""
        if rows is None and isinstance(self._owner, np.ndarray):
            return self
        values = self.numpy()
        return OnHost(values if rows is None else values[rows])


@dataclass
class Bound:
    """What a session's binding was told: inputs as (address, shape), outputs of known shape."""

    session: Any
    binding: Any
    inputs: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    outputs: dict[str, OrtTensor] = field(default_factory=dict)


_POLL_S = 0.01
MAX_BOUND = 32
"""Bindings that a caller keeps for a stage, one for each batch: to bind takes longer than to run a
small stage, and a batch that is split has other sizes every time."""


def _allocate(count: int, dtype: np.dtype[Any], place: tuple[str, int], device: OrtDevice) -> Any:
    """Memory for ``count`` elements, on the host all 0 and never what others have left there.

    On the host of a GPU it is pinned where ``device`` gives such memory.

    Raises:
        EngineRunError: there is not enough of it.
    """
    try:
        if place[0] == "cpu":
            pinned = pinned_zeros(count, dtype, *device.pinning) if device.pinning else None
            return np.zeros(count, dtype) if pinned is None else pinned
        return ort.OrtValue.ortvalue_from_shape_and_type([count], dtype, *place)
    except Exception as error:
        if not isinstance(error, (MemoryError, ValueError)) and not is_ort_error(error):
            raise
        raise EngineRunError(
            f"a buffer of {count} {dtype} could not be allocated on {place[0]} "
            f"({reason_of(error)}); lower max_batch, or run fewer threads"
        ) from error


class OrtWorkspace:
    """Buffers of one caller: grown to the largest batch seen, then used again and again."""

    def __init__(self, device: OrtDevice) -> None:
        self._device = device
        self._buffers: dict[tuple[str, str], tuple[Any, int, np.dtype[Any]]] = {}
        self._host: dict[str, npt.NDArray[np.float32]] = {}
        self._host_arrays: dict[str, OrtTensor] = {}  # as they were last asked for
        self._tensors: dict[tuple[str, str], dict[tuple[int, ...], OrtTensor]] = {}
        self._bound: dict[str, OrderedDict[int, Bound]] = {}
        self.kept: dict[str, Any] = {}
        self.deadline: Deadline | None = None
        self.timed, self.lone, self.warming = True, False, False
        self.abandoned: Callable[[], bool] | None = None
        """Whether a run that was not waited for any longer is over by now."""

    @property
    def busy(self) -> bool:
        """See :attr:`dyninfer.engines.base.Workspace.busy`."""
        if self.abandoned is not None and self.abandoned():
            self.abandoned = None
        return self.abandoned is not None

    def bound(self, stage: str, batch: int) -> Bound | None:
        """The binding of a stage for batches of this size, if it is kept."""
        found = self._bound.get(stage)
        if found is None or batch not in found:
            return None
        if len(found) > 1:
            found.move_to_end(batch)
        return found[batch]

    def keep_bound(self, stage: str, batch: int, bound: Bound) -> None:
        """Keep a binding; the one that was not used for longest gives way to it."""
        found = self._bound.setdefault(stage, OrderedDict())
        found[batch] = bound
        if len(found) > MAX_BOUND:
            found.popitem(last=False)

    def host_array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """A host array of this shape, from a buffer that is used again; one type for each name."""
        known = self._host_arrays.get(name)
        if known is not None and known.shape == shape:
            return known.numpy()
        count = math.prod(shape)
        buffer = self._host.get(name)
        if buffer is None or buffer.size < count:
            buffer = self._host[name] = _allocate(count, dtype, HOST, self._device)
        known = self._host_arrays[name] = OrtTensor.over_array(buffer[:count].reshape(shape))
        return known.numpy()

    def over_array(self, array: npt.NDArray[Any]) -> OrtTensor:
        """See :meth:`OrtTensor.over_array`; on a CPU always the same one of an array from here.

        Elsewhere it would keep a copy on the device for longer than the call.
        """
        if self._device.is_cpu:
            for known in self._host_arrays.values():
                if known.numpy() is array:
                    return known
        return OrtTensor.over_array(array)

    def tensor(
        self, key: tuple[str, str], shape: tuple[int, ...], dtype: np.dtype[Any], on_host: bool
    ) -> OrtTensor:
        """A tensor of this shape in the buffer ``key``, allocated only if it must grow.

        ``key`` is a stage and its output. Bindings of a stage whose buffer is replaced are let go;
        gathers, whose first part names no stage, are bound again every time.
        """
        known = self._tensors.setdefault(key, {})
        found = known.get(shape)
        if found is not None and found.dtype == dtype:
            return found
        count = math.prod(shape)
        buffer, capacity, kept = self._buffers.get(key, (None, 0, dtype))
        place = HOST if on_host else self._device.place
        if buffer is None or capacity < count or kept != dtype:
            buffer = _allocate(count, dtype, place, self._device)
            self._buffers[key] = (buffer, count, dtype)
            self._bound.pop(key[0], None)
            known.clear()
        pointer = buffer.ctypes.data if isinstance(buffer, np.ndarray) else buffer.data_ptr()
        known[shape] = OrtTensor(buffer, pointer, shape, dtype, place)
        return known[shape]

    def device_spans(self) -> Sequence[DeviceSpan]:
        """Nothing: the host waits for every stage, and on a GPU for the copies within it."""
        return ()

    def close(self) -> None:
        """Let go of all buffers and bindings, once a run that was abandoned is over."""
        while self.busy:
            time.sleep(_POLL_S)
        self._buffers.clear()
        self._host.clear()
        self._host_arrays.clear()
        self._tensors.clear()
        self._bound.clear()
        self.kept.clear()

    @property
    def allocated_bytes(self) -> int:
        """Size of all buffers together."""
        device = sum(
            buffer.nbytes if isinstance(buffer, np.ndarray) else buffer.tensor_size_in_bytes()
            for buffer, _, _ in self._buffers.values()
        )
        return int(device + sum(array.nbytes for array in self._host.values()))
