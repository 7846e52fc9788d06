"""Weights that several stages of a bundle share: read once, whoever asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import StoredFile
from dyninfer.engines.onnx_file import find_shared
from dyninfer.engines.protobuf import fields, written
from dyninfer.errors import EngineBuildError
from dyninfer.files import check_regular

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 7, 5, 8, 9, 13, 14
"""Fields of ONNX's models, graphs and tensors."""
_MOST_USES = 8
"""Tensors of a stage that are equal lie in one place, but what is read is kept for each of them."""
_in_use: WeakValueDictionary[str, npt.NDArray[np.uint8]] = WeakValueDictionary()
"""SHA-256 -> the bytes, as long as an engine of this process uses them."""


def read_shared(path: Path, what: str, weights: StoredFile | None) -> dict[str, npt.NDArray[Any]]:
    """The tensors that an ONNX file keeps in the file beside it.

    They are views of one copy of the file's bytes: a file that is mapped into memory, as ONNX
    Runtime does it, ends the process as soon as somebody shortens it.

    Args:
        path: the ONNX file.
        what: what messages call it.
        weights: the file that it may keep weights in, which lies in the same folder; None: none.

    Returns:
        Arrays, read-only, by name; empty for a file that holds all of its weights itself.

    Raises:
        EngineBuildError: values are kept anywhere else, the weights are not those that were
            exported, or it is no ONNX file.
    """
    tensors = find_shared(path, what, weights)
    if not tensors or weights is None:
        return {}
    file = path.parent / PurePosixPath(weights.file).name
    content = _in_use.get(weights.sha256)
    if content is None:
        content = _in_use[weights.sha256] = _read(file, weights.sha256)
    if beyond := [tensor.name for tensor in tensors if tensor.stop > len(content)]:
        raise EngineBuildError(
            f"{what} ({path}) reads {beyond[0]!r} beyond the end of {file}; export the bundle again"
        )
    if sum(tensor.stop - tensor.start for tensor in tensors) > _MOST_USES * len(content):
        raise EngineBuildError(
            f"{what} ({path}) reads {file} more than {_MOST_USES} times over, and each tensor may "
            "be copied; export the bundle again"
        )
    return {
        tensor.name: content[tensor.start : tensor.stop].view(tensor.dtype).reshape(tensor.shape)
        for tensor in tensors
    }


def with_weights(data: bytes, weights: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An ONNX file that holds itself what it kept in the file beside it.

    Args:
        data: the file, as :func:`read_shared` has found it to be whole.
        weights: what that has read.
    """

    def tensor(start: int, stop: int) -> bytes:
        parts = [(number, begin, end) for number, _, begin, end in fields(data, start, stop)]
        names = [data[begin:end].decode() for number, begin, end in parts if number == _NAME]
        array = weights.get(names[0]) if names else None
        if array is None:
            return data[start:stop]
        kept = _without(data, start, stop, (_EXTERNAL_DATA, _DATA_LOCATION))
        return kept + written(_RAW_DATA, array.tobytes())

    def graph(start: int, stop: int) -> bytes:
        parts = fields(data, start, stop)
        own = [
            written(_INITIALIZER, tensor(a, b))
            for number, _, a, b in parts
            if number == _INITIALIZER
        ]
        return b"".join([_without(data, start, stop, (_INITIALIZER,)), *own])

    graphs = [graph(a, b) for number, _, a, b in fields(data, 0, len(data)) if number == _GRAPH]
    return b"".join(
        [_without(data, 0, len(data), (_GRAPH,)), *(written(_GRAPH, g) for g in graphs)]
    )


def _without(data: bytes, start: int, stop: int, numbers: Collection[int]) -> bytes:
    """A message but for the fields of some numbers."""
    kept, place = [], start
    for number, _, _, end in fields(data, start, stop):
        if number not in numbers:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _read(file: Path, sha256: str) -> npt.NDArray[np.uint8]:
    try:
        check_regular(file)
        content = file.read_bytes()
    except OSError as error:
        raise EngineBuildError(
            f"{file} cannot be read: {error.strerror or error}; export the bundle again"
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EngineBuildError(f"{file} was changed after the export; export the bundle again")
    return np.frombuffer(content, np.uint8)
