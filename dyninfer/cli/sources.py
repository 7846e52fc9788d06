"""What a user means by SOURCE: pictures, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from dyninfer.errors import InputError
from dyninfer.images.reading import SUFFIXES, find_images

_VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


def expand_sources(sources: Sequence[str]) -> list[Path]:
    """All pictures that are meant, each once, in the order given; folders are searched whole.

    Raises:
        InputError: a source does not exist, holds no picture, or is a video or a stream.
    """
    found: dict[str, Path] = {}
    for source in sources:
        _refuse_streams(source)
        path = Path(source)
        if path.is_dir():
            pictures = find_images(path)
            if not pictures:
                known = ", ".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES))
                raise InputError(f"the folder {source} holds no pictures ({known})")
        elif path.exists():
            pictures = [path]
        else:
            pictures = _expand_glob(source)
        for picture in pictures:
            found.setdefault(str(picture.absolute()), picture)
    return list(found.values())


def _refuse_streams(source: str) -> None:
    if "://" in source or source.isdigit() or Path(source).suffix.lower() in _VIDEO_SUFFIXES:
        raise InputError(
            f"{source} is a video, camera or stream, which this version does not read; "
            "pass pictures, folders or globs"
        )


def _expand_glob(source: str) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207  # Path.glob takes no absolute pattern
    pictures: list[Path] = []
    for match in matches:
        if match.is_dir():
            pictures += find_images(match)
        elif match.suffix.lower() in SUFFIXES:
            pictures.append(match)
    if pictures:
        return pictures
    if glob.has_magic(source):
        raise InputError(f"no picture matches {source}; quote a glob so that the shell leaves it")
    raise InputError(f"{source} does not exist; pass a picture, a folder or a quoted glob")
