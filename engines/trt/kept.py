"""What is found out on a machine once, kept in this user's cache folder for the next time.

TensorRT-RTX compiles kernels when an engine first runs; TensorRT times them when it builds one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

from dyninfer.bundle.unfinished import write_atomically
from dyninfer.bundle.unpacking import user_cache
from dyninfer.engines.trt.api import IRuntimeCache

logger = logging.getLogger("dyninfer")


def timing_file(version: str, gpu: str) -> Path | None:
    """Where TensorRT's timings of kernels on this GPU are kept; None for a user without a home."""
    try:
        return user_cache("timings") / f"{version}-{re.sub(r'[^A-Za-z0-9]+', '-', gpu)}.cache"
    except OSError:
        return None


class KeptKernels:
    """A runtime cache, and its file in this user's cache folder.

    The file is no part of a bundle: nothing that came with one is read. TensorRT-RTX itself refuses
    kernels of another version, GPU or driver, and they are compiled anew. Where the folder cannot
    be read or written, every process compiles its own.
    """

    def __init__(self, cache: IRuntimeCache, name: str) -> None:
        self.cache = cache
        self._saved = b""
        try:
            self._path: Path | None = user_cache("kernels") / name
        except OSError:
            self._path = None
        self._read()

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("rb") as file:
                if not _is_ours(file):
                    return
                content = file.read()
            if self.cache.deserialize(content):
                self._saved = hashlib.sha256(content).digest()
        except OSError as error:
            logger.debug("no compiled kernels are kept: %s", error)

    def save(self) -> None:
        """Write what is compiled by now, if that is more than before."""
        serialized = self.cache.serialize()
        if self._path is None or serialized is None:
            return
        content = bytes(memoryview(serialized))
        digest = hashlib.sha256(content).digest()
        if digest == self._saved:
            return
        self._saved = digest
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, content)
        except OSError as error:
            logger.debug("compiled kernels are not kept: %s", error)


def _is_ours(file: BinaryIO) -> bool:
    """Whether this user wrote it: where the cache is a shared folder, it may be anybody's."""
    return sys.platform == "win32" or os.fstat(file.fileno()).st_uid == os.getuid()
