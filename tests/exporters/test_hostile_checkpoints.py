"""Small checkpoints that would crash, hang or take all memory: refused, or read without harm."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from dyninfer import CheckpointError
from dyninfer.exporters.safe_load import load_checkpoint
from dyninfer.exporters.safe_pickle import LARGEST_PICKLE, Omitted, read_pickle
from tests import support

HEAD, END = b"\x80\x02", b"."
ONE = {"data/0": bytes(4)}


def named(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<i", len(data)) + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def called(name: str, *arguments: bytes) -> bytes:
    return named(name) + b"(" + b"".join(arguments) + b"tR"


def storage(count: int, kind: str = "torch.FloatStorage", key: str = "0") -> bytes:
    return b"(" + text("storage") + named(kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 1):
    rest = (number(offset), numbers(*shape), numbers(*strides), b"\x89", b"N")
    return called("torch._utils._rebuild_tensor_v2", storage(count), *rest)


def mapping(*pairs: bytes) -> bytes:
    return b"}(" + b"".join(pairs) + b"u"


def dtype_with_fields(state: bytes) -> bytes:
    """What crashes where NumPy takes the state of its element types from the file."""
    made = called("numpy.dtype", text("f8"), b"\x89", b"\x88")
    return made + b"(" + number(3) + text("|") + state + number(8) + number(1) + number(63) + b"tb"


@pytest.fixture
def write(tmp_path):
    def write(
        content: bytes, files: Mapping[str, bytes] = ONE, packing: int = zipfile.ZIP_STORED
    ) -> Path:
        path = tmp_path / "weights.pt"
        with zipfile.ZipFile(path, "w", packing) as archive:
            for name, data in {"data.pkl": HEAD + content + END, **files}.items():
                archive.writestr(f"archive/{name}", data)
        return path

    return write


def test_a_checkpoint_written_by_hand_is_read(write) -> None:
    content = mapping(text("x"), tensor((2, 2), (1, 0), 0, 2))
    found = load_checkpoint(write(content, {"data/0": struct.pack("<2f", 3, 4)}))
    assert found["x"].tolist() == [[3, 3], [4, 4]]


@pytest.mark.parametrize("state", [b"NNN", b"N(" + text("a") + b"t}"])
def test_no_state_of_numpys_classes_is_set(write, state) -> None:
    dtype = dtype_with_fields(state)
    scalar = called("numpy.core.multiarray.scalar", dtype, text("AAAAAAAA"))
    content = mapping(text("dtype"), dtype, text("scalar"), scalar)
    found = load_checkpoint(write(content))
    assert found == {
        "dtype": Omitted("numpy.dtype"),
        "scalar": Omitted("numpy.core.multiarray.scalar"),
    }


def test_a_bytearray_of_ten_gigabytes_is_not_made(write) -> None:
    content = called("builtins.bytearray", number(10**10))
    assert isinstance(load_checkpoint(write(content)), Omitted)


def nested_key() -> bytes:
    """A tuple of a tuple twice, of a tuple twice...: its hash takes 2^40 steps."""
    twice = b"".join(b"q%ch%c\x86" % (level, level) for level in range(40))
    return mapping(b")" + twice, b"N")


def colliding_keys() -> bytes:
    return mapping(*(number(n * (2**61 - 1)) + b"N" for n in range(60_000)))


def test_keys_that_are_slow_to_find_are_refused(write) -> None:
    with support.refuses(CheckpointError, "weights.pt", "key"):
        load_checkpoint(write(colliding_keys()))


@pytest.mark.parametrize("content", [nested_key(), mapping(b"G" + bytes(8), b"N")])
def test_keys_that_are_slow_to_hash_are_left_out_with_their_values(write, content) -> None:
    assert load_checkpoint(write(content)) == {}


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((10**12,), (1,), 0),
        ((2,), (1,), 0),
        ((1,), (1,), 1),
        ((1,), (1,), -1),
        ((1,), (1,), 2**70),
        ((2, 2), (1, -1), 0),
        ((1, 1), (1,), 0),
        ((0, 2**31), (1, 1), 0),
        ((0, *[2**30] * 4), (1,) * 5, 0),
        ((1,) * 100, (1,) * 100, 0),
    ],
)
def test_a_shape_that_does_not_fit_its_storage_is_refused(write, shape, strides, offset) -> None:
    with support.refuses(CheckpointError, "weights.pt"):
        load_checkpoint(write(tensor(shape, strides, offset)))


@pytest.mark.parametrize(
    "content",
    [
        storage(10**9),
        storage(2, "torch.HalfStorage") + storage(1) + b"\x86",
        storage(1, key="1"),
        storage(1, key="../data.pkl"),
        b"(" + text("storage") + text("torch") + text("0") + text("cpu") + number(1) + b"tQ",
        number(1) + b"Q",
        called("torch._utils._rebuild_tensor_v2"),
        called("torch._utils._rebuild_tensor_v2", *[b"N"] * 6),
        called("collections.OrderedDict", b"]"),
        named("collections.OrderedDict") + b"NR",
        number(1) + b")R",
        number(1) + b")b",
        number(1) + b"Na",
        number(1) + b"NNs",
        b"}(Nu",
        b"h\x07",
        b"0" * 5,
        b"t",
        b"",
        b"\x8f0",
        text("os") + b"N\x93",
        b"NN\x81",
        b"2",
        text("a\ud800"),
        number(2**4000),
        b"\x93",
        b"X\xff\xff\xff\xff",
        b"I" + b"9" * 9000 + b"\n",
    ],
)
def test_what_torch_never_writes_is_refused_in_one_line(write, content) -> None:
    with support.refuses(CheckpointError, "weights.pt"):
        load_checkpoint(write(content))


def test_a_pickle_that_is_larger_than_any_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most"):
        read_pickle(bytes(LARGEST_PICKLE + 1), lambda _: None, lambda _: None)


def test_what_is_compressed_is_refused_before_it_is_unpacked(write) -> None:
    path = write(tensor((10**8,), (1,), 0, 10**8), {"data/0": bytes(10**8)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with support.refuses(CheckpointError, "weights.pt", "compressed"):
        load_checkpoint(path)


def test_entries_that_claim_more_than_the_file_has_are_refused(write) -> None:
    """The directory at the end of an archive says how large its entries are, and may lie."""
    path = write(tensor((1,), (1,)))
    data = path.read_bytes()
    place = data.rindex(b"PK\x01\x02") + 20
    path.write_bytes(data[:place] + struct.pack("<II", 2**31, 2**31) + data[place + 8 :])
    with support.refuses(CheckpointError, "weights.pt", "more than the"):
        load_checkpoint(path)


def damaged(data: bytes) -> dict[str, bytes]:
    """Archives with a directory, flags, versions and names that ``zipfile`` falls over."""
    start = data.index(b"PK\x01\x02")
    return {
        "encrypted": data[: start + 8] + b"\x01" + data[start + 9 :],
        "version": data[: start + 6] + b"\xff\xff" + data[start + 8 :],
        "method": data[: start + 10] + b"\x63" + data[start + 11 :],
        "name": data[: start + 8]
        + b"\x00\x08"
        + data[start + 10 : start + 46]
        + b"\xff"
        + data[start + 47 :],
        "directory": data[: start + 1] + b"X" + data[start + 2 :],
        "local": data.replace(b"archive/data.pkl", b"archive/DATA.pkl", 1),
        "checksum": data.replace(HEAD + b"}", HEAD + b"]"),
    }


@pytest.mark.parametrize("kind", damaged(b"PK\x01\x02" + bytes(60)))
def test_a_damaged_archive_is_refused_in_one_line(write, kind) -> None:
    path = write(b"}")
    path.write_bytes(damaged(path.read_bytes())[kind])
    with support.refuses(CheckpointError, "weights.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize("order", [b"big", b"\xff\xfe", b""])
def test_numbers_of_another_byte_order_are_refused(write, order) -> None:
    with support.refuses(CheckpointError, "weights.pt", "endian"):
        load_checkpoint(write(b"}", {"byteorder": order}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_refused_at_once(tmp_path) -> None:
    os.mkfifo(tmp_path / "weights.pt")
    with support.refuses(CheckpointError, "weights.pt", "pipe"):
        load_checkpoint(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "name",
    ["os.system", "numpy.load", "torch.jit.load", "torch._utils._rebuild_wrapper_subclass"],
)
def test_names_outside_the_table_are_refused(write, name) -> None:
    with support.refuses(CheckpointError, "weights.pt", name, "refused"):
        load_checkpoint(write(called(name, text("x"))))
