"""Arrays that another library has on a GPU: what they say of themselves, without a copy.

Two protocols are understood, those of PyTorch, CuPy, Numba, JAX and others: DLPack
(https://dmlc.github.io/dlpack/latest/) and the CUDA Array Interface
(https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dyninfer.errors import InputError

CUDA = 2
"""``kDLCUDA``, DLPack's number for a CUDA device."""
_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {  # (kDLFloat, bits)
    (2, 32): np.dtype(np.float32),
    (2, 16): np.dtype(np.float16),
}


@dataclass(frozen=True)
class DeviceArray:
    """C-contiguous values on a GPU, seen with a shape. The first axis is the batch.

    Attributes:
        pointer: address on the device.
        device: number of the GPU; None where the owner does not say.
        owner: kept alive with the values.
        order_before: called with a stream's handle; afterwards, work on that stream comes after
            whatever still writes the values. Returns the handle of a stream to wait for, if the
            owner leaves the waiting to the reader.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int | None
    owner: Any
    order_before: Callable[[int], int | None]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Size of one image."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> DeviceArray:
        """The rows from ``start`` up to ``stop``, or up to the last."""
        stop = min(stop, len(self))
        pointer = self.pointer + start * self.row_bytes
        return replace(self, pointer=pointer, shape=(stop - start, *self.shape[1:]))


def is_device_array(value: Any) -> bool:
    """Whether a value says that it lives on a GPU."""
    if hasattr(value, "__dlpack_device__"):
        return bool(value.__dlpack_device__()[0] == CUDA)
    return hasattr(value, "__cuda_array_interface__")


def device_array(value: Any, name: str) -> DeviceArray:
    """What an array on a GPU says of itself; :func:`is_device_array` must hold for it.

    Raises:
        InputError: it is not C-contiguous, or of a dtype that no stage takes.
    """
    if hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value, name)
    return _from_interface(value, name)


def _from_interface(value: Any, name: str) -> DeviceArray:
    interface = value.__cuda_array_interface__
    shape, dtype = tuple(map(int, interface["shape"])), np.dtype(interface["typestr"])
    strides, stream = interface.get("strides"), interface.get("stream")
    if strides is not None:
        steps = [int(stride) // dtype.itemsize for stride in strides]
        _check_contiguous(shape, steps, name)
    pointer = int(interface["data"][0])
    return DeviceArray(
        pointer, shape, dtype, None, value, lambda _: None if stream is None else int(stream)
    )


class _DLTensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(value: Any, name: str) -> DeviceArray:
    """Look into the capsule that the owner makes, and let the owner keep the memory.

    A capsule that is not consumed is freed with its last reference, as the protocol says; the
    owner is what stays alive.
    """
    capsule = _capsule(value, -1, name)  # -1: no waiting yet
    tensor = _DLTensor.from_address(_capsule_pointer(capsule))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    dtype = _DTYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise InputError(
            f"{name} has DLPack type code {tensor.code} with {tensor.bits} bits, expected float32"
        )
    if tensor.strides:
        _check_contiguous(shape, [tensor.strides[axis] for axis in range(tensor.ndim)], name)
    pointer = (tensor.data or 0) + tensor.byte_offset

    def order_before(stream: int) -> None:
        _capsule(value, stream, name)  # making it is what lets the stream wait

    return DeviceArray(pointer, shape, dtype, tensor.device_id, value, order_before)


def _capsule(value: Any, stream: int, name: str) -> Any:
    try:
        return value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} cannot be shared through DLPack: {reason}") from error


def _capsule_pointer(capsule: Any) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    pointer: int = get(capsule, b"dltensor")
    return pointer


def _check_contiguous(shape: tuple[int, ...], steps: list[int], name: str) -> None:
    """Compare strides, in elements, with those of a C-contiguous array."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(steps), strict=True):
        if size > 1 and step != expected:
            raise InputError(f"{name} {shape} is not contiguous on its device; copy it first")
        expected *= size
