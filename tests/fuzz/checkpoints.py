"""Checkpoints, topologies and class names: zips, pickles and YAML, changed or made up."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save

from dyninfer.exporters.class_names import read_names
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.model import load_model
from tests import support
from tests.exporters.test_mindspore_file import mindspore_file
from tests.fuzz.mutation import mutate_bytes, mutate_json

GLOBALS = (
    *(b"collections OrderedDict", b"builtins set", b"builtins bytearray", b"builtins complex"),
    *(b"torch._utils _rebuild_tensor_v2", b"torch._utils _rebuild_parameter", b"torch Size"),
    *(
        b"torch FloatStorage",
        b"torch HalfStorage",
        b"torch.storage UntypedStorage",
        b"torch device",
    ),
    *(b"torch float32", b"torch Tensor", b"torch.nn.parameter Parameter", b"torch ByteStorage"),
    *(b"torch._utils _rebuild_sparse_tensor", b"torch._utils _rebuild_qtensor"),
    *(b"torch._tensor _rebuild_from_type_v2", b"torch._utils _rebuild_wrapper_subclass"),
    *(b"numpy ndarray", b"numpy dtype", b"numpy.core.multiarray _reconstruct"),
    *(b"numpy._core.multiarray scalar", b"numpy.dtypes Float64DType", b"numpy.dtypes BoolDType"),
    *(b"numpy.dtypes Int64DType", b"os system", b"builtins eval", b"_codecs encode"),
)
LONGS = (0, 1, 2, 3, 5, 255, -1, 2**31 - 1, 2**40, 2**62)
YAML = (
    *(b"&a [x, x]", b"*a", b"!!python/object/apply:os.system [true]", b"- " * 500, b"{" * 300),
    *(b"1e9999", b"-1", b"[[-1, -2], 1, Concat, [1]]", b"nan", b"\x00", b"9999999999", b"null"),
    b"&a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]",
)


class Checkpoints:
    """Read into a model, with a topology and class names beside it."""

    def __init__(self, material: Path) -> None:
        (material / "small.yaml").write_text(support.SMALL_YAML)
        model = support.small_detector(read_topology(material / "small.yaml"))
        support.save_checkpoint(model, material / "small.pt")
        torch.save({"a": torch.ones(2, 2), "b": torch.zeros(3).half()}, material / "tiny.pt")
        self._files = [(material / name).read_bytes() for name in ("small.pt", "tiny.pt")]
        self._safetensors = save({k: v.contiguous() for k, v in model.state_dict().items()})
        self._mindspore = mindspore_file({"a": torch.ones(2, 2), "b": torch.zeros(3).half()}, 2)

    def make(self, rng: Random, folder: Path) -> None:
        data = rng.choice(self._files)
        match rng.randrange(8):
            case 0:
                data = mutate_bytes(rng, data)
            case 1:
                data = _other_entries(rng, data, _made_up_pickle(rng))
            case 2 | 3:
                data = _other_entries(rng, data, _other_pickle(rng, pickle_of(data)))
            case 4:
                data = _other_entries(rng, data, mutate_bytes(rng, pickle_of(data)))
            case 5:
                data = _other_header(rng, self._safetensors)
            case 6:
                data = mutate_bytes(rng, self._mindspore)
            case _:
                pass  # the topology is what is wrong
        (folder / "some.pt").write_bytes(data)
        text = support.SMALL_YAML.encode()
        if rng.random() < 0.3:
            text = _other_yaml(rng, text)
        (folder / "some.yaml").write_bytes(text)
        names = b"names: " + rng.choice((b"[a, b]", b"{0: a, 1: b}", *YAML))
        (folder / "names.yaml").write_bytes(names)

    def feed(self, folder: Path) -> None:
        load_model(folder / "some.pt", folder / "some.yaml")
        read_names(folder / "names.yaml")


def _other_header(rng: Random, data: bytes) -> bytes:
    """The tensors with another description, whose length is at times another, too."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(mutate_json(rng, json.loads(data[8:end]))).encode()
    length = rng.choice((len(header), len(header), len(header) - 1, 2**40, 2**64 - 1))
    made = length.to_bytes(8, "little") + header + data[end:]
    return mutate_bytes(rng, made) if rng.random() < 0.2 else made


def pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return archive.read(name)


def _other_entries(rng: Random, data: bytes, pickle: bytes) -> bytes:
    """The archive with another pickle; at times its other entries are others, too."""
    made = io.BytesIO()
    compressed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(made, "w", compressed) as new,
    ):
        for name in old.namelist():
            content = pickle if name.endswith("data.pkl") else old.read(name)
            match rng.randrange(300):
                case 0:
                    continue
                case 1:
                    content = mutate_bytes(rng, content)
                case 2:
                    content = b"\0" * (1 << 22)
                case 3:
                    name = rng.choice(("../x", "/x", "a" * 300, "é"))
            new.writestr(name, content)
    return mutate_bytes(rng, made.getvalue()) if rng.random() < 0.1 else made.getvalue()


def _other_pickle(rng: Random, pickle: bytes) -> bytes:
    """Its instructions: some are left out, doubled, or moved, or have other arguments."""
    operations = list(pickletools.genops(pickle))
    ends = [place for _, _, place in operations[1:]] + [len(pickle)]
    parts = [pickle[start:end] for (_, _, start), end in zip(operations, ends, strict=True)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(parts))
        match rng.randrange(5):
            case 0:
                del parts[place]
            case 1:
                parts.insert(place, parts[rng.randrange(len(parts))])
            case 2:
                parts[place] = _long(rng)
            case 3:
                found = [n for n, part in enumerate(parts) if part[:1] == b"c"]
                if found:
                    parts[rng.choice(found)] = _global(rng)
            case _:
                numbers = [n for n, part in enumerate(parts) if part[:1] in (b"K", b"M", b"J")]
                if numbers:
                    parts[rng.choice(numbers)] = _long(rng)
    return b"".join(parts)


def _global(rng: Random) -> bytes:
    return b"c" + rng.choice(GLOBALS).replace(b" ", b"\n") + b"\n"


def _long(rng: Random) -> bytes:
    value = rng.choice(LONGS)
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def _text(rng: Random) -> bytes:
    text = rng.choice((b"storage", b"0", b"cpu", b"cuda", b"f8", b"O", b"V9", b"model", b"x" * 300))
    return b"X" + struct.pack("<I", len(text)) + text


def _made_up_pickle(rng: Random) -> bytes:
    """A program of calls of what may be called, with states and arguments that do not fit."""
    made = [b"\x80\x02"]
    for _ in range(rng.randrange(1, 8)):
        made.append(_global(rng))
        arguments = [_atom(rng) for _ in range(rng.randrange(4))]
        made.append(b"(" + b"".join(arguments) + b"t" + rng.choice((b"R", b"R", b"\x81")))
        if rng.random() < 0.5:
            state = b"".join(_atom(rng) for _ in range(rng.randrange(9)))
            made.append(b"(" + state + b"tb")
        if rng.random() < 0.3:
            made.append(_text(rng) + _atom(rng) + b"s")
    made.append(rng.choice((b"", b"\x85", b"Q", b"0")) + b".")
    return b"".join(made)


def _atom(rng: Random) -> bytes:
    kinds = (
        *(_long(rng), _long(rng), _text(rng), b"N", b"\x88", b"}", b"]", b")", _global(rng)),
        *(b"(" + _long(rng) * 2 + b"t", b"(" + _text(rng) + _long(rng) + b"t", b"C\x04abcd"),
        *(b"G" + rng.randbytes(8), b"h\x00", b"2"),
    )
    return rng.choice(kinds)


def _other_yaml(rng: Random, text: bytes) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(rng, text)
    lines = text.split(b"\n")
    place = rng.randrange(len(lines))
    head, _, tail = lines[place].partition(b":" if b":" in lines[place] else b",")
    lines[place] = head + rng.choice((b": ", b", ", b"- ")) + rng.choice((*YAML, tail))
    return b"\n".join(lines)
