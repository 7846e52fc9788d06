"""A file's inputs and outputs as it declares them, and what inputs beside the image hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import ValueInfoProto, helper

from dyninfer.types import AnyArray

# the last words of an input's name, and what it holds for an image of so many rows and columns
_SIZE_INPUTS: dict[str, Callable[[int, int], tuple[float, ...]]] = {
    r"target_sizes?$": lambda h, w: (w, h),  # RT-DETR and its relatives
    r"scale_factor$": lambda _h, _w: (1.0, 1.0),  # PaddleDetection, and the next
    r"(im|img|image)_?(shape|size)$": lambda h, w: (h, w),
    r"im_info$": lambda h, w: (h, w, 1.0),
}


@dataclass(frozen=True)
class Port:
    """An input or output of a file; axes are numbers, or None where they are dynamic."""

    name: str
    elem_type: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} (any shape)"
        return f"{self.name} ({', '.join('?' if n is None else str(n) for n in self.shape)})"


def port(value: ValueInfoProto) -> Port:
    """An input or output as a file declares it."""
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim)
    return Port(value.name, tensor.elem_type, shape if tensor.HasField("shape") else None)


def tells_size(port: Port) -> bool:
    """Whether what an input holds follows from the image's size: see :func:`size_input`."""
    return _is_mask(port) or any(re.search(pattern, port.name) for pattern in _SIZE_INPUTS)


def _is_mask(port: Port) -> bool:
    return port.shape is not None and len(port.shape) == 3 and port.name.endswith("mask")


def size_input(port: Port, height: int, width: int) -> AnyArray:
    """What an input beside the image holds for an image that fills ``height`` x ``width``."""
    dtype = helper.tensor_dtype_to_np_dtype(port.elem_type)
    if _is_mask(port):  # of DETR: every pixel is part of the picture
        return np.ones((1, height, width), dtype)
    values = next(made for pattern, made in _SIZE_INPUTS.items() if re.search(pattern, port.name))
    row = np.array(values(height, width), dtype)
    return row if port.shape is not None and len(port.shape) == 1 else row[None]
