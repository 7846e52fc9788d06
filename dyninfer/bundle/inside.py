"""Files inside a bundle: never through a link, and what is opened is what was hashed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dyninfer.errors import BundleError
from dyninfer.files import check_regular

_HASH_BLOCK = 1 << 20
_Stamp = tuple[int, ...]


def inside(bundle: Path, file: str) -> Path:
    """The path of a file or folder of a bundle, there or not, to read or to write.

    The bundle itself may be reached through a link.

    Raises:
        BundleError: the file, or a folder above it, is a link, which may lead out of the bundle,
            or has a name that no file can have.
    """
    path = bundle
    for part in PurePosixPath(file).parts:
        path = path / part
        try:
            leads_away = path.is_symlink()
        except OSError as error:
            raise BundleError(
                f"{str(path)[:200]!r} cannot be examined: {error.strerror}; export it again"
            ) from None
        if leads_away:
            raise BundleError(
                f"{path} is a link, which is never followed inside a bundle; put what it leads to "
                "in its place"
            )
    return path


@dataclass(frozen=True)
class CheckedFile:
    """A file of a bundle that was compared with its hash, and how it was found before that."""

    bundle: Path
    file: str
    stamps: tuple[_Stamp, ...]

    def confirm(self) -> None:
        """Say that the file was opened.

        Raises:
            BundleError: it, or what stands in its place, changed since it was hashed.
        """
        path = inside(self.bundle, self.file)
        try:
            same = _stamps(self.bundle, self.file) == self.stamps
        except OSError:
            same = False
        if not same:
            raise BundleError(f"{path} was changed while it was opened; load the bundle again")


def check_file(bundle: Path, file: str, sha256: str, since: str, remedy: str) -> CheckedFile:
    """Compare a file of a bundle with its hash.

    Raises:
        BundleError: it is missing, a link, or was changed ``since``; ``remedy`` is what to do.
    """
    path = inside(bundle, file)
    if not path.is_file():
        raise BundleError(f"{path} is missing; {remedy}")
    try:
        checked = CheckedFile(bundle, file, _stamps(bundle, file))
        found = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    if found != sha256:
        raise BundleError(
            f"{path} was changed after {since} (SHA-256 {found[:12]}..., "
            f"expected {sha256[:12]}...); {remedy}"
        )
    return checked


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read block by block.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    check_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _stamps(bundle: Path, file: str) -> tuple[_Stamp, ...]:
    """What changes when the file is replaced or written to, or a folder above it exchanged.

    The times of the folder that holds it are among them: else it could be exchanged and be put back
    in between. Those of folders above are not, in which others may write meanwhile.
    """
    path = bundle / file
    found = [path.lstat()]
    while path.parent != bundle:
        path = path.parent
        found.append(path.lstat())
    stamps = [_whole_stamp(stat) for stat in found[:2]]
    return (*stamps, *((stat.st_dev, stat.st_ino) for stat in found[2:]))


def _whole_stamp(found: os.stat_result) -> _Stamp:
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)
