"""Writing a new bundle: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.exchange import exchange
from dyninfer.bundle.folder import MANIFEST_FILE, ROUTER_FILE
from dyninfer.bundle.manifest import Manifest
from dyninfer.bundle.unfinished import aside_of, claimed, forsake, put_back, unfinished_folder
from dyninfer.errors import DyninferError, ExportError

# what renaming a folder says where another one, or a link to one, is
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def write_bundle(
    path: Path,
    write: Callable[[Path], Manifest],
    *,
    overwrite: bool = False,
    router_record: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a bundle in one step: whole, or not at all.

    Args:
        path: the folder to be made, ``NAME.dyn``.
        write: writes the files of the stages into the folder it is given, and returns the manifest
            that describes them.
        overwrite: replace a bundle that is at ``path``.
        router_record: how the routers were fitted, for ``router.json``.

    Raises:
        ExportError: something is at ``path`` and ``overwrite`` is False, or writing failed.
    """
    with new_bundle(path, overwrite=overwrite) as folder:
        manifest = write(folder)
        records = {MANIFEST_FILE: manifest.model_dump(mode="json"), ROUTER_FILE: router_record}
        for name, record in records.items():
            if record is not None:
                (folder / name).write_text(dump_sealed(record), encoding="utf-8")
    return manifest


def write_stage_file(folder: Path, file: str, content: bytes) -> str:
    """Write a stage's file into the folder of a new bundle; its SHA-256."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def new_bundle(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes the bundle ``path`` when the block ends without error.

    Whatever fails inside, a full disk included, leaves what was at ``path`` as it was and no
    temporary folder behind.

    Raises:
        ExportError: something is at ``path`` and ``overwrite`` is False, or writing failed.
    """
    check_target(path, overwrite=overwrite)
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with new_folder(path, ExportError, overwrite=overwrite) as temporary:
            yield temporary
    finally:
        for folder in missing:  # made above, innermost first; kept where the bundle is inside
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def new_folder(
    path: Path, refusal: type[DyninferError], *, overwrite: bool = True
) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` when the block ends without error.

    ``refusal`` is the error to raise where writing fails, or where a folder came to ``path``
    meanwhile and ``overwrite`` is False.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(path) as temporary:
            yield temporary
            if _rename(temporary, path):
                return
            if not overwrite:
                raise refusal(
                    f"{path} was written by another process meanwhile and is kept; choose another "
                    "name, or replace it with --overwrite (in Python: overwrite=True)"
                )
            replace_folder(temporary, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "; the disk is full, free some space and try again" if full else ""
        reason = error.strerror or error
        raise refusal(f"{path} cannot be written: {reason}{hint}") from error


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over something that is not a bundle, or over a bundle unasked."""
    try:
        path.name.encode()
    except UnicodeEncodeError:  # the manifest could not name it
        raise ExportError(f"{str(path)[:80]!r} is not valid text; choose another name") from None
    if "\0" in str(path):
        raise ExportError(f"{str(path)[:80]!r} is not a valid path; choose another name")
    put_back(path)
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not os.access(folder, os.W_OK):
        raise ExportError(f"{path} cannot be written: {folder} is read-only; choose another place")
    if not path.exists() and not path.is_symlink():
        return
    if not (path.is_dir() and ((path / MANIFEST_FILE).exists() or not any(path.iterdir()))):
        raise ExportError(f"{path} exists and is not a bundle; choose another name")
    if not overwrite and any(path.iterdir()):
        raise ExportError(
            f"{path} exists; choose another name, or replace it with --overwrite "
            "(in Python: overwrite=True)"
        )


def _rename(new: Path, target: Path) -> bool:
    """Rename a folder to a name that is free, or an empty folder's; False where it is neither."""
    try:
        new.rename(target)
    except OSError as error:
        if error.errno not in _OCCUPIED or not target.is_dir():
            raise
        return False
    return True


def replace_folder(new: Path, target: Path) -> None:
    """Let ``new`` take the place of the folder ``target``, which comes to its place, or goes.

    Whatever interrupts it, one whole folder is at ``target``; where the system cannot exchange two
    names in one step, :func:`dyninfer.bundle.unfinished.put_back` sees to that.
    """
    if exchange(new, target):
        return
    with claimed(target):  # or an opener would put it back between the steps
        aside = aside_of(target)
        try:
            target.rename(aside)
            new.rename(target)
        except BaseException:
            if os.path.lexists(aside) and not os.path.lexists(target):
                aside.rename(target)
            raise
    forsake(aside, target)
