"""Reading files of other people: regular ones alone, and no more of them than expected."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_regular(path: Path) -> int:
    """The size of a regular file in bytes; pipes and devices could be read for ever.

    Raises:
        OSError: it is something else, or not there.
        ValueError: the path holds a null character.
    """
    return _check(path.stat(), path)


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file, of which there may be ``most``.

    Raises:
        OSError: it has more, is no regular file, or cannot be read.
        ValueError: the path holds a null character.
    """
    # a pipe is opened without waiting for whoever writes into it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        size = _check(os.fstat(descriptor), path)
        data = file.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:
        found = max(size, len(data))
        raise OSError(errno.EFBIG, f"it has {found} bytes, expected at most {most}", str(path))
    return data


def _check(found: os.stat_result, path: Path) -> int:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, expected a file", str(path))
    return found.st_size
