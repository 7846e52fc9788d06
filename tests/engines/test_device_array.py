"""Arrays of other libraries that do not say what is so."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer import InputError
from dyninfer.engines.device_array import device_array, is_device_array
from tests import support
from tests.engines.trt.standin.arrays import DLTensor

FITTING = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}


class Interface:
    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = interface


def in_capsule(tensor: DLTensor, name: bytes = b"dltensor") -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(ctypes.addressof(tensor), name, None)


class Dlpack:
    """Shares a tensor of these fields."""

    def __init__(self, shape=(2, 3), strides=None, name=b"dltensor", **fields: Any) -> None:
        axes = ctypes.c_int64 * max(len(shape), 1)
        self._kept = [axes(*shape), strides and axes(*strides)]
        numbers = ctypes.POINTER(ctypes.c_int64)
        fitting = {"data": 4096, "device_type": 2, "ndim": len(shape), "code": 2, "bits": 32}
        fitting |= {"lanes": 1, "shape": ctypes.cast(self._kept[0], numbers)}
        self._tensor = DLTensor(**(fitting | fields))
        if strides:
            self._tensor.strides = ctypes.cast(self._kept[1], numbers)
        self._name = name

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return in_capsule(self._tensor, self._name)


def test_what_fits_is_taken() -> None:
    for value in (Interface(**FITTING), Dlpack()):
        found = device_array(value, "images")
        assert (found.pointer, found.shape, found.dtype) == (4096, (2, 3), np.float32)
    assert device_array(Interface(**FITTING | {"shape": (0, 3), "data": (0, False)}), "x").shape


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data": (0, False)}, ("0x0",)),
        ({"data": (4098, False)}, ("0x1002", "multiple of 4")),
        ({"data": (-4, False)}, ("memory",)),
        ({"data": (2**63 - 4, False)}, ("memory",)),
        ({"data": None}, ("TypeError",)),
        ({"data": ()}, ("IndexError",)),
        ({"shape": (-1, 3)}, ("(-1, 3)",)),
        ({"shape": (2**40, 2**40)}, ("memory",)),
        ({"shape": (2.5, 3)}, ("TypeError",)),
        ({"shape": None}, ("TypeError",)),
        ({"typestr": ">f4"}, (">f4",)),
        ({"typestr": "<f8"}, ("float64",)),
        ({"typestr": "|O"}, ("object",)),
        ({"typestr": "|V0"}, ("float32",)),
        ({"typestr": "nonsense"}, ("TypeError",)),
        ({"strides": (12, 6)}, ("not contiguous",)),
        ({"strides": (12, -4)}, ("not contiguous",)),
        ({"strides": (12, 7)}, ("not contiguous",)),
        ({"strides": (0, 4)}, ("not contiguous",)),
        ({"strides": (4,)}, ("not contiguous",)),
        ({"strides": (12, 4, 4)}, ("not contiguous",)),
        ({"stream": "seven"}, ("TypeError",)),
        ({"mask": Interface(**FITTING)}, ("with a mask",)),
    ],
)
def test_an_interface_that_says_what_cannot_be_is_refused(changes, parts) -> None:
    with support.refuses(InputError, "images", *parts):
        device_array(Interface(**FITTING | changes), "images")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"data": None}, ("0x0",)),
        ({"byte_offset": 2**64 - 4096}, ("memory",)),
        ({"byte_offset": 1}, ("0x1001",)),
        ({"device_type": 1}, ("device type 1", "on a GPU")),
        ({"ndim": -1}, ("-1 axes",)),
        ({"ndim": 2**30}, ("axes",)),
        ({"shape": None}, ("axes",)),
        ({"lanes": 4}, ("float32",)),
        ({"code": 0}, ("type code 0",)),
        ({"bits": 8}, ("8 bits",)),
        ({"name": b"used_dltensor"}, ("used already",)),
    ],
)
def test_a_dlpack_tensor_that_says_what_cannot_be_is_refused(fields, parts) -> None:
    name = {"name": fields.pop("name")} if "name" in fields else {}
    given_shape = {} if fields.get("shape", ()) is None else {"shape": (2, 3)}
    with support.refuses(InputError, "images", *parts):
        if given_shape:
            device_array(Dlpack(**given_shape, **fields, **name), "images")
        else:
            value = Dlpack()
            value._tensor.shape = None
            device_array(value, "images")


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4), max_size=4),
    st.none() | st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 64), max_size=4),
    st.integers(-(2**64), 2**64) | st.sampled_from([0, 4096]),
    st.sampled_from(["<f4", "<f2"]),
)
def test_what_is_taken_lies_in_memory_row_by_row(shape, strides, pointer, typestr) -> None:
    value = Interface(shape=shape, typestr=typestr, data=(pointer, False), strides=strides)
    try:
        found = device_array(value, "images")
    except InputError:
        return
    assert found.shape == tuple(shape)
    size = math.prod(shape) * found.dtype.itemsize
    assert size >= 0
    assert 0 <= found.pointer <= found.pointer + size < 2**63
    assert found.pointer or not size
    if strides is not None and size:
        rows = np.lib.stride_tricks.as_strided(np.zeros(0, found.dtype), shape, strides)
        assert rows.flags.c_contiguous


def test_a_library_that_cannot_say_where_a_tensor_is_is_not_on_a_gpu() -> None:
    import torch

    assert not is_device_array(torch.zeros(1, device="meta"))
    assert not is_device_array(np.zeros(1))


def test_a_description_that_raises_is_one_line() -> None:
    class Refusing:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("a tensor that requires grad\nhas none")

    class Without:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, *, stream: int | None = None) -> Any:
            return None

    with support.refuses(InputError, "images", "requires grad"):
        device_array(Refusing(), "images")
    with support.refuses(InputError, "images", "no DLPack tensor"):
        device_array(Without(), "images")
