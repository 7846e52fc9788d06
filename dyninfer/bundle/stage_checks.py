"""Hashing a bundle's stages while others are being opened."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    found = path.stat()
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


class StageChecks:
    """Compares the files of stages with their hashes, one after the other, in a second thread.

    Creating a session keeps one core busy, and so does hashing: a stage is hashed while the one
    before it is opened, so that checking costs hardly any time. Files are hashed block by block
    and not kept: sessions that are made from bytes were slower and took 300 MB more for
    Dy-YOLOv7. So that nobody can change a file between its check and its use, its times, size
    and inode are compared again once it was opened.

    Use it as a context manager. Where its block fails for any reason, a changed file is what is
    reported: nothing else that was found can be relied on.

    Args:
        bundle: whose own files are checked, those of the route in the order they are opened in.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._thread = ThreadPoolExecutor(1, "dyninfer-hash")
        names = dict.fromkeys([*bundle.manifest.route.stages, *bundle.manifest.stages])
        self._checks = {name: self._thread.submit(self._check, name) for name in names}

    def _check(self, name: str) -> tuple[int, ...]:
        stamp = _stamp(self._bundle.stage_path(name))
        self._bundle.check_stage(name)
        return stamp

    def wait(self, name: str) -> None:
        """Wait until a stage's file was compared with its hash; BundleError where it differs."""
        self._checks[name].result()

    def confirm(self, name: str) -> None:
        """Say that a stage's file was read; BundleError where it changed since it was hashed."""
        path = self._bundle.stage_path(name)
        if _stamp(path) != self._checks[name].result():
            raise BundleError(f"{path} was changed while it was opened; load the bundle again")

    def wait_all(self) -> None:
        """Wait for all files; BundleError names the manifest's first that differs."""
        for name in self._bundle.manifest.stages:
            self._checks[name].result()

    def __enter__(self) -> StageChecks:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self.wait_all()
        finally:  # after a failure, or where the user interrupts, nobody waits for the rest
            self._thread.shutdown(cancel_futures=True)
