"""What is being written: it has a name of its own, its writer's lock, and is swept if that dies.

A file or folder is written beside its place, as ``.NAME.dyninfer-new-1a2b3c4d``, and renamed once
it is whole. Its writer holds a lock on it, which the system drops with the process, so that the
next writer can tell what nobody will ever finish. Where a system or file system has no such locks,
nothing is swept.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_NEW, _OLD = "new", "old"
_LEFTOVER = re.compile(rf"\.(.+)\.dyninfer-({_NEW}|{_OLD})-[0-9a-f]{{8}}")
_TRIES, _PAUSE_SECONDS = 50, 0.01
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def unfinished_folder(target: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new folder beside ``target``, to be renamed; what has its name afterwards is removed.

    What dead writers have left in the folder around it is swept before. The umask is taken off
    ``mode``.

    Raises:
        OSError: the folder around it cannot be written.
    """
    sweep(target.parent)
    folder, lock = _create(target, lambda path: os.mkdir(path, mode))  # noqa: PTH102  # as is
    try:
        yield folder
    finally:
        remove(folder)
        _unlock(lock)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for intermediate files in the system's temporary folder, for this user alone."""
    with unfinished_folder(Path(tempfile.gettempdir(), "scratch"), 0o700) as folder:
        yield folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by ``content`` so that a reader sees the old or the new one, never half.

    What dead writers have left in its folder is swept before.
    """
    sweep(path.parent)
    temporary, lock = _create(path, lambda made: os.close(os.open(made, _CREATE, 0o666)))
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _unlock(lock)


def sweep(folder: Path) -> None:
    """Remove what dead writers have left in ``folder``, and put back what they moved aside."""
    with contextlib.suppress(OSError):  # of a folder that cannot be read, nothing is known
        for path in sorted(folder.glob(".*.dyninfer-*-*")):
            _sweep_one(path)


def put_back(target: Path) -> None:
    """Put a folder back that a dead writer moved aside and did not replace.

    A writer that is alive is given a moment to end; where a file system has no locks, so is any.
    """
    for tries_left in reversed(range(_TRIES)):
        asides = _leftovers(target, _OLD)
        if not asides or os.path.lexists(target):
            return
        for path in asides:
            _sweep_one(path, without_locks=not tries_left)
        time.sleep(_PAUSE_SECONDS)


def aside_of(folder: Path) -> Path:
    """A name for it from which whoever opens or writes it next puts it back, should we die."""
    return _beside(folder, _OLD)


def forsake(aside: Path, target: Path) -> None:
    """Remove what was moved aside, which nobody shall put back from now on, not even in part."""
    remove(aside.rename(_beside(target, _NEW)))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file or folder while the block runs.

    Gives True where it is held, False where another writer has it, None where there are no locks.

    Raises:
        OSError: it is not there.
    """
    if sys.platform == "win32":
        yield None
        return
    lock = os.open(path, _READ)
    try:
        held: bool | None = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:
            held = None
        yield held and _is_at(lock, path)
    finally:
        os.close(lock)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, read-only ones too, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(folder).chmod(stat.S_IRWXU)
        try:
            shutil.rmtree(path, ignore_errors=True)
        except OSError as error:  # before Python 3.13, where an interrupt comes at its os.close
            if error.__context__ is None or isinstance(error.__context__, OSError):
                raise
            raise error.__context__ from None
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _leftovers(target: Path, kind: str) -> list[Path]:
    """What writers of ``target`` have left; nothing of a folder that cannot be read."""
    with contextlib.suppress(OSError):
        names = ((path, _LEFTOVER.fullmatch(path.name)) for path in target.parent.iterdir())
        return [path for path, found in names if found and found.groups() == (target.name, kind)]
    return []


def _sweep_one(path: Path, *, without_locks: bool = False) -> None:
    found = _LEFTOVER.fullmatch(path.name)
    if found is None:
        return
    with contextlib.suppress(OSError), claimed(path) as dead:
        target = path.with_name(found[1])
        if not (dead or (dead is None and without_locks)):
            return
        if found[2] == _OLD and not os.path.lexists(target):
            path.rename(target)
        else:
            remove(path)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.dyninfer-{kind}-{secrets.token_hex(4)}")


def _create(target: Path, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Make a new file or folder and lock it: its path and its lock, None without locks."""
    while True:
        path = _beside(target, _NEW)
        make(path)
        if sys.platform == "win32":
            return path, None
        try:
            lock = os.open(path, _READ)
        except FileNotFoundError:  # another writer took it for dead before it was locked
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, path):
                return path, lock
        except OSError:  # a file system without locks, where nobody sweeps
            os.close(lock)
            return path, None
        except BaseException:  # interrupted
            os.close(lock)
            remove(path)
            raise
        os.close(lock)


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the name still stands for what was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
