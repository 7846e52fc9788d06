"""Reading PyTorch checkpoints without running anything that they bring."""

from __future__ import annotations

import math
import re
import shlex
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dyninfer.errors import CheckpointError
from dyninfer.exporters.file_kinds import START, archive_kind, kind_of
from dyninfer.exporters.mindspore_file import is_mindspore, read_mindspore
from dyninfer.exporters.safe_pickle import Omitted, RefusedGlobalsError, read_pickle
from dyninfer.files import check_regular
from dyninfer.foreign_errors import let_through, reason_of

_LARGEST_AXIS = 1 << 31
_MOST_AXES = 64
_LARGEST_PRODUCT = 1 << 62


def load_checkpoint(path: Path) -> Any:
    """The content of a checkpoint: tensors, containers, numbers and texts.

    It is a file of ``torch.save``, of safetensors or of MindSpore. No code runs that the file
    chooses: a pickle in it is read by a machine of our own, which makes nothing but these, and an
    ``Omitted`` in the place of NumPy's values, paths and the like.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or needs something that
            is not allowed, which the message names.
    """
    start, size = _start_of(path)
    try:
        if _is_safetensors(start, size):
            return load_file(path)  # a header in JSON and numbers: nothing in it can run
        if is_mindspore(start):
            return read_mindspore(path)
        _check_archive(path, start)
        with zipfile.ZipFile(path) as archive:
            return _Weights(archive, path).read()
    except RefusedGlobalsError as error:
        raise CheckpointError(_refusal(path, error.names)) from None
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives fail in many ways, none of them documented
        raise CheckpointError(
            f"{path} is damaged, or is not a checkpoint: {reason_of(error)}"
        ) from error


def _start_of(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file, and how many it has."""
    try:
        size = check_regular(path)
        with path.open("rb") as file:
            start = file.read(START)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; check the path of the checkpoint") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, expected a checkpoint file (.pt)") from None
    except (OSError, ValueError) as error:
        let_through(error)
        raise CheckpointError(f"{str(path)[:80]!r} cannot be read: {error}") from None
    if not size:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again")
    return start, size


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file may be one: the length of a JSON object, which follows."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def _check_archive(path: Path, start: bytes) -> None:
    if not start.startswith(b"PK"):
        raise CheckpointError(f"{path} is not a PyTorch checkpoint but {kind_of(start)}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is cut off (its end is missing); download or copy it again")


def _refusal(path: Path, names: Sequence[str]) -> str:
    """Why names are refused, and what to do: of a training's own classes another than of the rest.

    The line to run loads the file in the ordinary way, which nobody should be told to do with one
    that calls functions of the system.
    """
    other = [name for name in names if not _is_of_a_training(name)]
    refused = (
        f"{path} needs the global {(other or names)[0]!r}, which is refused because unpickling it "
        "could run code"
    )
    if other:
        return f"{refused}; save the weights alone, for example torch.save(model.state_dict(), ...)"
    # a Module's own state_dict where the whole model was pickled, with or without a dict around it
    program = (
        f"import torch; c = torch.load({str(path.absolute())!r}, map_location='cpu', "
        "weights_only=False); m = (c.get('ema') or c['model']) if isinstance(c, dict) else c; "
        "torch.save(m.state_dict() if hasattr(m, 'state_dict') else m, "
        f"{str(path.absolute().with_suffix('.weights.pt'))!r})"
    )
    return (
        f"{refused}; if you trust the file, save its weights alone, in the folder of the code that "
        f"trained it: python -c {shlex.quote(program)}, and export what that writes"
    )


def _is_of_a_training(name: str) -> bool:
    """Whether a global is a class of somebody's model, by where it comes from."""
    root = name.partition(".")[0]
    if root in ("torch", "numpy"):
        return name.startswith(("torch.nn.modules.", "torch.nn.parallel.", "torch.optim."))
    return root not in {*sys.stdlib_module_names, "__builtin__", "copy_reg", "cPickle", "commands"}


class _Weights:
    """An archive of ``torch.save``, with each storage that was read."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self._storages: dict[str, Tensor] = {}
        names = archive.namelist()
        if kind := archive_kind(names):
            raise CheckpointError(f"{path} is not a PyTorch checkpoint but {kind}")
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"it holds {len(pickles)} files FOLDER/data.pkl, expected one")
        self._folder = pickles[0].removesuffix("data.pkl")
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Nothing is compressed, so that no more can come out than the file has bytes."""
        entries = self._archive.infolist()
        if packed := [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"{packed[0].filename!r} is compressed, which torch.save never does")
        total, size = sum(entry.file_size for entry in entries), self._path.stat().st_size
        if total > size:
            raise ValueError(f"its entries have {total} bytes, more than the {size} of the file")

    def read(self) -> Any:
        """The content.

        Raises:
            ValueError: it is damaged, or was written on a machine of the other byte order.
        """
        order = f"{self._folder}byteorder"
        written = self._archive.read(order) if order in self._archive.namelist() else b"little"
        if written != sys.byteorder.encode():
            raise ValueError(
                f"its numbers are {written.decode(errors='replace')[:20]}-endian; "
                f"save it again on a {sys.byteorder}-endian machine"
            )
        data = self._archive.read(f"{self._folder}data.pkl")
        return read_pickle(data, _named, self._storage)

    def _storage(self, reference: Any) -> Tensor | Omitted:
        """All numbers of a storage, as a tensor of one axis."""
        match reference:
            case ("storage", torch.dtype() | Omitted() as dtype, str(key), str(), int(count)):
                pass
            case _:
                raise ValueError(
                    "its pickle refers to a storage in a way that torch.save never does"
                )
        if isinstance(dtype, Omitted):
            return dtype
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            size = len(data) // dtype.itemsize
            if len(data) % dtype.itemsize or size != count:
                raise ValueError(
                    f"storage {key!r} has {len(data)} bytes, expected {count} numbers ({dtype})"
                )
            made = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self._storages[key] = made
        found = self._storages[key]
        if found.dtype != dtype:
            raise ValueError(f"storage {key!r} is {found.dtype} at one place, {dtype} at another")
        return found


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor | Omitted:
    """A view of a storage; what else belongs to it (gradients, hooks, notes) is left out."""
    if isinstance(storage, Omitted):
        return storage
    if not isinstance(storage, Tensor) or not _are_counts((offset,), size, stride):
        raise ValueError("its pickle describes a tensor in a way that torch.save never does")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return storage.new_empty(size)
    if last >= len(storage):
        raise ValueError(
            f"a tensor of the shape {size} ends at number {last} of {len(storage)} in its storage"
        )
    return storage.as_strided(size, stride, offset)


def _are_counts(*several: Any) -> bool:
    """Whether these are tuples of whole numbers that a tensor's shape and strides can hold."""
    return all(
        isinstance(numbers, tuple)
        and len(numbers) <= _MOST_AXES
        and all(type(n) is int and 0 <= n < _LARGEST_AXIS for n in numbers)
        and math.prod(max(1, n) for n in numbers) < _LARGEST_PRODUCT
        for numbers in several
    )


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _shape(axes: Any) -> Any:
    """What ``torch.Size`` is made from, a tuple."""
    return axes


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _of_type(function: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
    """A tensor of a class of its own, or with attributes: the tensor alone."""
    if function is not _tensor or not isinstance(arguments, tuple):
        raise ValueError("its pickle describes a tensor in a way that torch.save never does")
    return _tensor(*arguments)


def _named(name: str) -> Any:
    """What stands for ``module.name``; None where that is refused."""
    return Omitted(name) if _OMITTED.fullmatch(name) else _NAMES.get(name)


# what trainings write beside weights: left out, since making it runs code on the file's data
_OMITTED = re.compile(
    "|".join(
        (
            r"numpy\._?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)",
            r"numpy\.(dtype|ndarray|matrix|dtypes\.\w+DType)",
            r"numpy\.ma\.(core\.)?(MaskedArray|_mareconstruct)",
            r"numpy\.(bool_?|u?int\d+|float\d+|complex\d+|str_|bytes_|datetime64|timedelta64)",
            r"numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor",
            r"numpy\.random\._(mt19937\.MT19937|pcg64\.PCG64(DXSM)?|philox\.Philox|sfc64\.SFC64)",
            r"numpy\.random\.bit_generator\.\w*SeedSequence\w*",
            r"(random\.Random|numpy\.random\.(mtrand\.RandomState|_generator\.Generator))",
            r"pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path",
            r"datetime\.(datetime|date|time|timedelta|timezone)",
            r"collections\.(Counter|defaultdict|deque)",
            r"(argparse\.Namespace|types\.SimpleNamespace|decimal\.Decimal|fractions\.Fraction)",
            r"uuid\.(UUID|SafeUUID)",
            r"(builtins|__builtin__)\.(set|frozenset|bytearray|bytes|complex|slice|range|object)",
            r"(builtins|__builtin__)\.(list|dict|tuple|int|float|str|bool)",
            r"(_codecs\.encode|copy_?reg\._reconstructor)",
            r"torch\.(device|Tensor|ComplexFloatStorage|ComplexDoubleStorage|Generator)",
            r"torch\.nn\.parameter\.(Parameter|Buffer)",
            r"torch\._utils\._rebuild_(sparse_tensor|qtensor|meta_tensor_no_storage)",
            r"torch\.serialization\._get_layout",
            *sorted(
                {re.escape(str(v)) for v in vars(torch).values() if isinstance(v, torch.dtype)}
            ),
        )
    )
)
_NAMES: Mapping[str, Any] = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _shape,
    "collections.OrderedDict": _ordered,
}
