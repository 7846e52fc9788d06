"""Unpacking what the package holds into the user's cache, or where that cannot be written, for now.

A bundle there is made file by file, ``bundle.json`` last, in a folder that is renamed when it is
whole; a file that is missing later, as a cache may be cleared in parts, is put back.
"""

from __future__ import annotations

import atexit
import gzip
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import platformdirs

from dyninfer.bundle.unfinished import unfinished_folder, write_atomically
from dyninfer.errors import BundleError

logger = logging.getLogger("dyninfer")


def unpack(what: str, name: str, files: Mapping[str, Path]) -> Path:
    """The folder ``name`` of the cache, with these files.

    Args:
        what: is unpacked, for messages.
        name: of the folder, another one where the files differ.
        files: by the name in that folder; those that end in ``.gz`` are decompressed.

    Raises:
        BundleError: neither the cache nor a temporary folder can be written.
    """
    try:
        return _unpack_into(user_cache("models"), name, files)
    except OSError as error:
        place = error.filename or "the cache folder"
        reason = f"{place} cannot be written ({error.strerror or error})"
    try:
        folder = _unpack_into(_temporary_folder(), name, files)
    except OSError as error:
        raise BundleError(
            f"{what} cannot be unpacked: {reason}, and in the temporary folder "
            f"{error.strerror or error}; set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    _tell_temporary(what, reason)
    return folder


def _unpack_into(parent: Path, name: str, files: Mapping[str, Path]) -> Path:
    """Make the folder, or put back what is missing in it.

    Raises:
        OSError: something cannot be written.
    """
    folder = parent / name
    if folder.is_dir():
        for file, packed in files.items():
            if not (folder / file).exists():
                (folder / file).parent.mkdir(exist_ok=True)
                write_atomically(folder / file, _content(packed))
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(folder) as temporary:
        for file, packed in files.items():
            (temporary / file).parent.mkdir(exist_ok=True)
            (temporary / file).write_bytes(_content(packed))
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    return folder


def _content(packed: Path) -> bytes:
    content = packed.read_bytes()
    return gzip.decompress(content) if packed.suffix == ".gz" else content


def user_cache(name: str) -> Path:
    """The folder ``name`` of this user's cache; on Linux below ``XDG_CACHE_HOME``.

    Raises:
        OSError: there is none, as for a user without a home.
    """
    folder = platformdirs.user_cache_path("dyninfer", appauthor=False)
    if not folder.is_absolute():  # "~/.cache", which would be made in the working folder
        raise OSError("this user has no home")
    return folder / name


@cache
def _temporary_folder() -> Path:
    """One for this process, which removes it in the end, and for those that are forked from it."""
    folder, owner = Path(tempfile.mkdtemp(prefix="dyninfer-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@cache
def _tell_temporary(what: str, reason: str) -> None:
    logger.warning(
        "%s: %s lies in a temporary folder, and what is calibrated or built for it goes when this "
        "process ends; set XDG_CACHE_HOME to a folder that can be written",
        reason,
        what,
    )
