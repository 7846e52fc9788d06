"""MindSpore's checkpoints, read without MindSpore."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dyninfer import CheckpointError
from dyninfer.exporters.safe_load import load_checkpoint
from tests import support

_TYPES = {torch.float32: "Float32", torch.float16: "Float16", torch.int64: "Int64"}


def varint(number: int) -> bytes:
    parts = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(name: str, shape: tuple[int, ...], kind: str, content: bytes) -> bytes:
    dims = b"".join(varint(1 << 3) + varint(side) for side in shape)
    tensor = dims + field(2, kind.encode()) + field(3, content)
    return field(1, field(1, name.encode()) + field(2, tensor))


def mindspore_file(state: Mapping[str, Tensor], parts: int = 1) -> bytes:
    """As ``mindspore.save_checkpoint`` writes it; a single number has the shape (0,)."""
    written = b""
    for name, tensor in state.items():
        shape = tuple(tensor.shape) or (0,)
        for part in np.array_split(tensor.numpy().reshape(-1), parts):
            written += value(name, shape, _TYPES[tensor.dtype], part.tobytes())
    return written


STATE = {
    "layer1.0.conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "global_step": torch.tensor(300),
}


@pytest.mark.parametrize("parts", [1, 3])
def test_tensors_come_back_whole_also_where_they_were_cut_in_parts(tmp_path, parts) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(mindspore_file(STATE, parts))
    found = load_checkpoint(path)
    assert found.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (value("a", (3,), "Float32", bytes(8)), "'a' has shape (3,), but 2 values"),
        (value("a", (1 << 62,), "Float32", bytes(4)), "but 1 values"),
        (value("a", (1,), "BFloat16", bytes(2)), "'a' is of type 'BFloat16'"),
        (value("a", (1,), "Float32", bytes(3)), "multiple of element size"),
        (value("a", (1,) * 17, "Float32", bytes(4)), "field 1 is none of a tensor"),
        (value("a", (1,), "Float32", bytes(4)) + field(2, b""), "field 2 is none"),
        (field(1, field(1, b"a") + field(2, b"") + b"\x1d"), "cut off"),
        (
            value("a", (1,), "Float32", bytes(2)) + value("a", (2,), "Float32", bytes(2)),
            "parts of 'a' differ",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, content, reason) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with support.refuses(CheckpointError, "x.ckpt", reason):
        load_checkpoint(path)


def test_files_that_are_cut_off_or_changed_never_do_anything_else(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.ckpt", mindspore_file(STATE)
    generator = random.Random(0)
    damaged = [whole[:length] for length in range(1, len(whole), 5)]
    for _ in range(100):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] = generator.randrange(256)
        damaged.append(bytes(changed))
    outcomes = set()
    for content in damaged:
        path.write_bytes(content)
        try:
            outcomes.add(type(load_checkpoint(path)))
        except CheckpointError:
            outcomes.add(CheckpointError)
    assert outcomes == {dict, CheckpointError}
