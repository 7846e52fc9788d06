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
from operator import index
from typing import Any

import numpy as np

from dyninfer.errors import InputError

CUDA = 2
"""``kDLCUDA``, DLPack's number for a CUDA device."""
_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {  # (kDLFloat or kDLUInt, bits)
    (2, 32): np.dtype(np.float32),
    (2, 16): np.dtype(np.float16),
    (1, 8): np.dtype(np.uint8),
}
_LARGEST = 2**63 - 1
_MAX_AXES = 32
_MISTAKES = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
"""What comes of reading what another library says where it does not say what it should."""


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
        ready: an event of this process's own, behind which the values are there; None of another
            library's.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int | None
    owner: Any
    order_before: Callable[[int], int | None]
    ready: Any = None

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
        try:
            return bool(value.__dlpack_device__()[0] == CUDA)
        except (*_MISTAKES, BufferError, RuntimeError):  # so PyTorch, of a tensor without memory
            return False
    return hasattr(value, "__cuda_array_interface__")


def device_array(value: Any, name: str) -> DeviceArray:
    """What an array on a GPU says of itself; :func:`is_device_array` must hold for it.

    Raises:
        InputError: it is not C-contiguous, of a dtype that no stage takes, or says what cannot be.
    """
    by_dlpack = hasattr(value, "__dlpack_device__")
    found = (_from_dlpack if by_dlpack else _from_interface)(value, name)
    size, itemsize = math.prod(found.shape) * found.dtype.itemsize, found.dtype.itemsize
    if min(found.shape, default=0) < 0 or size > _LARGEST - found.pointer or found.pointer < 0:
        raise InputError(
            f"{name} says that it is {found.shape} at {found.pointer:#x}, expected what fits into "
            "memory; look at how it was made"
        )
    if size and (not found.pointer or found.pointer % itemsize):
        raise InputError(
            f"{name} {found.shape} says that it is at {found.pointer:#x}, expected a multiple of "
            f"{itemsize} other than 0; copy it first"
        )
    return found


def _from_interface(value: Any, name: str) -> DeviceArray:
    try:
        interface = value.__cuda_array_interface__
        shape = tuple(map(index, interface["shape"]))
        dtype, pointer = np.dtype(interface["typestr"]), index(interface["data"][0])
        strides, stream = interface.get("strides"), interface.get("stream")
        strides = None if strides is None else tuple(map(index, strides))
        stream = None if stream is None else index(stream)
        masked = interface.get("mask") is not None
    except (*_MISTAKES, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{name} does not describe itself as the CUDA Array Interface says "
            f"({type(error).__name__}: {reason}); expected shape, typestr and data"
        ) from error
    if masked or dtype not in _DTYPES.values():
        found = f"{dtype} with a mask" if masked else f"{dtype} ({dtype.str})"
        raise InputError(f"{name} is {found} on its device, expected float32")
    if strides is not None:
        _check_contiguous(shape, strides, dtype.itemsize, name)
    return DeviceArray(pointer, shape, dtype, None, value, lambda _: stream)


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
    tensor = _DLTensor.from_address(_capsule_pointer(capsule, name))
    if tensor.device_type != CUDA or not 0 <= tensor.ndim <= _MAX_AXES or not tensor.shape:
        raise InputError(
            f"{name} shares a DLPack tensor of {tensor.ndim} axes on device type "
            f"{tensor.device_type}, expected one on a GPU, type {CUDA}"
        )
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    dtype = _DTYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise InputError(
            f"{name} has DLPack type code {tensor.code} with {tensor.bits} bits, expected float32"
        )
    if tensor.strides:
        strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim))
        _check_contiguous(shape, strides, 1, name)
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


def _capsule_pointer(capsule: Any, name: str) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    try:
        pointer: int = get(capsule, b"dltensor")
    except ValueError as error:
        raise InputError(
            f"{name} shares no DLPack tensor, or one that was used already; expected a new one"
        ) from error
    return pointer


def _check_contiguous(
    shape: tuple[int, ...], strides: tuple[int, ...], step: int, name: str
) -> None:
    """Compare strides with those of a C-contiguous array whose elements lie ``step`` apart."""
    expected = step
    fits = len(shape) == len(strides)
    for size, stride in zip(reversed(shape), reversed(strides), strict=False):
        fits = fits and (size <= 1 or stride == expected)
        expected *= size
    if not fits:
        raise InputError(f"{name} {shape} is not contiguous on its device; copy it first")
