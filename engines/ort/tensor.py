"""Tensors and buffers of the ONNX Runtime backend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import OnHost
from dyninfer.engines.ort.runtime import Target, ort
from dyninfer.types import Int64Array


class OrtTensor:
    """Memory on a device, seen with a shape; the owner is kept alive with it.

    ``offset`` is where the tensor starts in its owner, in elements; ``pointer`` includes it.
    """

    __slots__ = (
        "_moved",
        "_offset",
        "_owner",
        "device_id",
        "device_type",
        "dtype",
        "pointer",
        "shape",
    )

    def __init__(
        self,
        owner: Any,
        pointer: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: tuple[str, int],
        offset: int = 0,
    ) -> None:
        self._owner = owner
        self._offset = offset
        self._moved: OrtTensor | None = None
        self.pointer = pointer
        self.shape = shape
        self.dtype = dtype
        self.device_type, self.device_id = device

    @classmethod
    def over_array(cls, array: npt.NDArray[Any]) -> OrtTensor:
        """A tensor over a C-contiguous host array, without a copy."""
        array = np.ascontiguousarray(array)
        return cls(array, array.ctypes.data, array.shape, array.dtype, ("cpu", 0))

    @classmethod
    def over_value(cls, value: Any, dtype: np.dtype[Any], target: Target) -> OrtTensor:
        """A tensor over an OrtValue that ONNX Runtime allocated."""
        on_host = value.device_name() == "cpu"
        device = ("cpu", 0) if on_host else (target.device_type, target.device_id)
        return cls(value, value.data_ptr(), tuple(value.shape()), dtype, device)

    def on(self, target: Target) -> OrtTensor:
        """The tensor where the target computes: itself, or a copy that is made once.

        So an image that several stages read travels to a GPU once, and rows of it are gathered
        there.
        """
        if self.device_type == target.device_type:
            return self
        if self._moved is None:
            place = (target.device_type, target.device_id)
            value = ort.OrtValue.ortvalue_from_numpy(self.numpy(), *place)
            self._moved = OrtTensor.over_value(value, self.dtype, target)
        return self._moved

    def as_matrix(self) -> OrtTensor:
        """The same memory with all axes but the first in one: (N, K)."""
        shape = (self.shape[0], math.prod(self.shape[1:]))
        device = (self.device_type, self.device_id)
        return OrtTensor(self._owner, self.pointer, shape, self.dtype, device, self._offset)

    def row(self, index: int) -> OrtTensor:
        """One row as a batch of its own, (1, ...), in the same memory on the same device."""
        shape = (1, *self.shape[1:])
        skipped = index * math.prod(shape)
        pointer = self.pointer + skipped * self.dtype.itemsize
        device = (self.device_type, self.device_id)
        return OrtTensor(self._owner, pointer, shape, self.dtype, device, self._offset + skipped)

    def numpy(self) -> npt.NDArray[Any]:
        """The values on the host; a view where the memory is the host's already."""
        values = self._owner if isinstance(self._owner, np.ndarray) else self._owner.numpy()
        stop = self._offset + math.prod(self.shape)
        return values.reshape(-1)[self._offset : stop].reshape(self.shape)

    def to_host(self, rows: Int64Array | None = None) -> OnHost:
        """The values, or those of some rows; every run waits for its outputs, so they are there."""
        values = self.numpy()
        return OnHost(values if rows is None else values[rows])


@dataclass
class Bound:
    """What a session's binding was last told: inputs as (address, shape), outputs for a batch."""

    binding: Any
    inputs: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    batch: int = 0
    outputs: dict[str, OrtTensor] = field(default_factory=dict)


class OrtWorkspace:
    """Buffers of one caller: grown to the largest batch seen, then used again and again."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffers: dict[tuple[str, str], tuple[Any, int]] = {}
        self._host: dict[str, npt.NDArray[np.float32]] = {}
        self.bound: dict[str, Bound] = {}

    def host_array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A float32 host array of this shape, from a buffer that is used again."""
        count = math.prod(shape)
        buffer = self._host.get(name)
        if buffer is None or buffer.size < count:
            buffer = self._host[name] = np.empty(count, np.float32)
        return buffer[:count].reshape(shape)

    def tensor(
        self, key: tuple[str, str], shape: tuple[int, ...], dtype: np.dtype[Any], on_host: bool
    ) -> OrtTensor:
        """A tensor of this shape in the buffer ``key``, allocated only if it must grow."""
        count = math.prod(shape)
        buffer, capacity = self._buffers.get(key, (None, 0))
        device = ("cpu", 0) if on_host else (self._target.device_type, self._target.device_id)
        if capacity < count:
            if device[0] == "cpu":
                buffer = np.empty(count, dtype)
            else:
                buffer = ort.OrtValue.ortvalue_from_shape_and_type([count], dtype, *device)
            self._buffers[key] = (buffer, count)
        assert buffer is not None
        pointer = buffer.ctypes.data if isinstance(buffer, np.ndarray) else buffer.data_ptr()
        return OrtTensor(buffer, pointer, shape, dtype, device)

    def device_ms(self) -> Mapping[str, float]:
        """Nothing: the host waits for every stage."""
        return {}

    def close(self) -> None:
        """Let go of all buffers and bindings."""
        self._buffers.clear()
        self._host.clear()
        self.bound.clear()

    @property
    def allocated_bytes(self) -> int:
        """Size of all buffers together."""
        device = sum(
            buffer.nbytes if isinstance(buffer, np.ndarray) else buffer.tensor_size_in_bytes()
            for buffer, _ in self._buffers.values()
        )
        return int(device + sum(array.nbytes for array in self._host.values()))
