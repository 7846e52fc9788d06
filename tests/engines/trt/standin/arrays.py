"""Arrays of another library on the GPU, and the two ways in which they are shared."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.engines.trt.standin.machine import Machine, Operation


class DLTensor(ctypes.Structure):
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
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Values:
    """Values that a kernel on the owner's stream still has to write."""

    def __init__(self, machine: Machine, device: int, array: np.ndarray, offset: int = 0) -> None:
        self.machine, self.device, self.array, self.offset = machine, device, array, offset
        self.waited: list[int] = []
        self._kept: list[Any] = []
        machine.local.device = device
        self.address = machine.allocate(offset + array.nbytes)
        self.stream = machine.new_stream()
        target = machine.device_range(self.address + offset, array.nbytes, "values")

        def write() -> None:
            target.view[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

        machine.enqueue(self.stream.handle, Operation("their kernel", write, writes=[target]))
        machine.local.device = 0

    def free(self) -> None:
        self.machine.local.device = self.device
        self.machine.synchronize(self.stream.handle)
        self.machine.free(self.address, "device")
        self.machine.destroy_stream(self.stream.handle)
        self.machine.local.device = 0


class DlpackValues(Values):
    device_type = 2
    code = 2
    strides: tuple[int, ...] | None = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device_type, self.device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        if stream != -1:
            self.waited.append(stream)
            machine = self.machine
            event = machine.new_event(timing=False)
            machine.record(event, self.stream.handle)
            machine.stream_wait(stream, event)
            machine.destroy_event(event)
        shape = (ctypes.c_int64 * self.array.ndim)(*self.array.shape)
        strides = None
        if self.strides is not None:
            strides = (ctypes.c_int64 * self.array.ndim)(*self.strides)
        tensor = DLTensor(
            data=self.address,
            device_type=self.device_type,
            device_id=self.device,
            ndim=self.array.ndim,
            code=self.code,
            bits=self.array.dtype.itemsize * 8,
            lanes=1,
            shape=ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
            byte_offset=self.offset,
        )
        if strides is not None:
            tensor.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
        self._kept += [tensor, shape, strides]
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(tensor), b"dltensor", None)


class InterfaceValues(Values):
    strides: tuple[int, ...] | None = None
    says_stream = True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.address + self.offset, False),
            "strides": self.strides,
            "version": 3,
        }
        if self.says_stream:
            interface["stream"] = self.stream.handle
        return interface
