"""What a source's name stands for: pictures, a folder, a pattern, a list, a video, a stream."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from dyninfer.errors import InputError
from dyninfer.files import check_regular, read_file
from dyninfer.images.folders import (
    SUFFIXES,
    VIDEO_SUFFIXES,
    find_videos,
    match_images,
    match_videos,
    search_folder,
)
from dyninfer.images.formats import describe_unread
from dyninfer.plain_text import counted

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp")
"""Of addresses that are read."""
_LIST_BYTES = 16 << 20


class Kind(Enum):
    """What frames come from."""

    PICTURES = "pictures"
    VIDEO = "a video"
    CAMERA = "a camera"
    STREAM = "a stream"


def kind_of(source: str) -> Kind:
    """What a source is, by its name and, where that does not tell, by its first bytes.

    Raises:
        InputError: it is none; the message says what to write instead.
    """
    path = Path(source)
    if _exists(path):
        return Kind.VIDEO if path.is_file() and _is_video(path) else Kind.PICTURES
    if re.fullmatch(r"camera:\d{1,4}", source):
        return Kind.CAMERA
    if source.isdigit() or source.startswith("camera:"):
        number = source if source.isdigit() else "0"
        raise InputError(
            f"{source} is neither a file nor a camera; the first camera is camera:{number}"
            if number == "0"
            else f"{source} is not a file; a camera is camera:{number}"
        )
    scheme = re.match(r"([a-z][a-z0-9+.]+)://", source, re.IGNORECASE)
    if scheme is None:
        return Kind.VIDEO if path.suffix.lower() in VIDEO_SUFFIXES else Kind.PICTURES
    if scheme[1].lower() in SCHEMES:
        return Kind.STREAM
    hint = (
        "pass the path alone" if scheme[1].lower() == "file" else f"read are {', '.join(SCHEMES)}"
    )
    raise InputError(f"{source[:200]} is an address that is not read; {hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for a file, or with a null character
        return False


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    with path.open("rb") as file:  # regular, as is_file() says
        return describe_unread(file.read(1024)) == ("a video", False)


def split_sources(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sources of pictures, and videos, cameras and streams one by one, each once, in their order.

    Of folders and patterns the videos are taken out; what holds pictures beside is in both.

    Raises:
        InputError: a source is none, or a folder cannot be read.
    """
    still: list[str] = []
    moving: dict[str, str] = {}
    for source in sources:
        path, kind = Path(source), kind_of(source)
        there = _exists(path)
        if kind in (Kind.CAMERA, Kind.STREAM):
            moving[source] = source
        elif there and not path.is_dir():
            if kind is Kind.VIDEO:
                moving.setdefault(str(path.absolute()), source)
            else:
                still.append(source)
        else:
            videos = find_videos(path) if there else match_videos(source)
            for video in videos:
                moving.setdefault(str(video.absolute()), str(video))
            if not videos and kind is Kind.VIDEO:  # which is said to be missing when it is opened
                moving[source] = source
            elif not videos or (search_folder(path)[0] if there else match_images(source)):
                still.append(source)
    return still, list(moving.values())


def named_pictures(sources: Sequence[str | Path], warn: Callable[[str], None]) -> list[Path]:
    """All pictures that are meant, each once, in the order given; folders are searched whole.

    What exists as it is written wins over patterns. A file that is named is read whatever its name;
    of one that ends in ``.txt`` every line names a picture, a folder or a pattern, from the list's
    own folder, and lines that begin with ``#`` are left out. ``warn`` is told what is left out of
    folders.

    Raises:
        InputError: a source does not exist, holds no picture, or is a video, a camera or a stream.
    """
    found: dict[str, Path] = {}
    for source in map(str, sources):
        if not source.strip():
            raise InputError(f"{source!r} is an empty path; pass pictures, folders or patterns")
        kind = kind_of(source)
        if kind is not Kind.PICTURES:
            raise InputError(
                f"{source} is {kind.value}, expected pictures; pass pictures, folders or patterns"
            )
        for picture in _pictures_of(source, warn):
            found.setdefault(str(picture.absolute()), picture)
    return list(found.values())


def _pictures_of(source: str, warn: Callable[[str], None]) -> list[Path]:
    path = Path(source)
    if path.suffix.lower() == ".txt" and path.exists() and not path.is_dir():
        return _pictures_listed(path, warn)
    if path.is_dir():
        return _pictures_in(path, warn)
    return [path] if path.exists() else _expand_pattern(source)


def _pictures_listed(path: Path, warn: Callable[[str], None]) -> list[Path]:
    try:
        check_regular(path)
        text = read_file(path, _LIST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"the list {path} cannot be read: {reason}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    named = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(f"the list {path} names no picture; write one path a line")
    found: list[Path] = []
    for number, line in named:
        entry = str(path.parent / line)
        if Path(entry).suffix.lower() == ".txt":
            raise InputError(f"{path}, line {number}: {line} is another list; name pictures")
        try:
            found += named_pictures([entry], warn)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return found


def _pictures_in(folder: Path, warn: Callable[[str], None]) -> list[Path]:
    pictures, others = search_folder(folder)
    counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    more = f"{counts} left out: their formats are not read; convert them to JPEG or PNG"
    if not pictures:
        known = ", ".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES))
        videos = len(find_videos(folder))
        raise InputError(
            f"the folder {folder} holds no pictures ({known})"
            + f"; {more}" * bool(others)
            + f", but {counted(videos, 'video')}, to be named one by one" * bool(videos)
        )
    if others:
        warn(f"{folder}: {more}")
    return pictures


def _expand_pattern(source: str) -> list[Path]:
    if pictures := match_images(source):
        return pictures
    if glob.has_magic(source):
        raise InputError(
            f"no picture matches {source}; put a pattern in quotes, so that the shell leaves it"
        )
    raise InputError(f"{source} does not exist; pass a picture, a folder or a quoted pattern")
