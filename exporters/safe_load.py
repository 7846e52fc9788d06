"""Reading PyTorch checkpoints without running anything that they bring."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dyninfer.errors import CheckpointError

# What a NumPy array or scalar in a checkpoint needs to be rebuilt, and nothing else; the functions
# are named after a module that NumPy 2 has renamed.
_TYPES = ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")
_REBUILDERS = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64().__reduce__()[0]}
_NUMPY_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in _TYPES),
    *((rebuild, f"numpy._core.multiarray.{name}") for name, rebuild in _REBUILDERS.items()),
    *((rebuild, f"numpy.core.multiarray.{name}") for name, rebuild in _REBUILDERS.items()),
]


def load_checkpoint(path: Path) -> Any:
    """The content of a ``torch.save`` file: tensors, containers, numbers, NumPy arrays.

    Pickled code never runs: everything but an allow-list is refused.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or needs something that
            is not allowed, which the message names.
    """
    _check_container(path)
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused just below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} needs the global {found[1]!r}, which is refused because unpickling it could "
            "run code; save the weights alone, for example torch.save(model.state_dict(), ...)"
            if found
            else f"{path} is damaged and cannot be read; download or copy it again"
        ) from None
    except Exception as error:  # damaged archives fail in many ways, none of them documented
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path} is damaged and cannot be read: {reason[0]}") from error


def _check_container(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; check the path of the checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)[:80]!r} cannot be read: {error}") from None
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, expected a checkpoint file (.pt)")
    if not size:
        raise CheckpointError(f"{path} is empty (0 bytes); download or copy it again")
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise CheckpointError(f"{path} is damaged and cannot be read: {error}") from None
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"{path} is a TorchScript program, not a checkpoint; "
                "give the .pt file that the training wrote"
            )
        return
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        raise CheckpointError(f"{path} is cut off (its end is missing); download or copy it again")
    raise CheckpointError(
        f"{path} is not a PyTorch checkpoint (no zip archive, as torch.save has written since "
        "version 1.6); re-save an older file with a current PyTorch"
    )
