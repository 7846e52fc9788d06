"""Where tensors of the device lie in one piece of memory of the host that they are copied to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dyninfer.engines.trt.cuda import ALIGNMENT
from dyninfer.engines.trt.memory import TrtTensor, row_runs
from dyninfer.types import Int64Array

View = tuple[str, int, tuple[int, ...], "np.dtype[Any]"]
"""Name, offset, shape and element type of a tensor in the host's copy."""


def aligned(size: int) -> int:
    """The next multiple of the alignment that addresses of tensors have."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def lay_out(
    tensors: Mapping[str, TrtTensor], rows: Int64Array | None
) -> tuple[list[tuple[int, int, int]], list[View]]:
    """Copies to the host as (offset, source, bytes), and where each tensor is then.

    Whole tensors that lie one behind the other on the device come in one copy, with what the
    alignment leaves between them.
    """
    copies: list[tuple[int, int, int]] = []
    views: list[View] = []
    end, last = 0, None
    for name, tensor in tensors.items():
        place, size = tensor.place, tensor.row_bytes
        assert place is not None
        count = tensor.shape[0] if rows is None else len(rows)
        offset = end
        if rows is not None:
            copies += [
                (offset + target * size, place.pointer + first * size, length * size)
                for first, target, length in row_runs(rows, tensor.shape)
            ]
        elif last is place.block and _follows(copies[-1], place.pointer):
            at, source, _ = copies[-1]
            offset = at + place.pointer - source
            copies[-1] = (at, source, place.pointer - source + count * size)
        else:
            copies.append((offset, place.pointer, count * size))
        last = place.block
        views.append((name, offset, (count, *tensor.shape[1:]), tensor.dtype))
        end = aligned(offset + count * size)
    return copies, views


def _follows(copy: tuple[int, int, int], pointer: int) -> bool:
    return 0 <= pointer - copy[1] - copy[2] < ALIGNMENT
