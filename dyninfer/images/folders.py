"""Which files below a folder, or of a pattern, are pictures."""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from dyninfer.errors import InputError

SUFFIXES = frozenset(
    {".bmp", ".dib", ".jpeg", ".jpg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".gif"}
    | {".pbm", ".pgm", ".ppm", ".tif", ".tiff"}
)
"""Of what is taken for a picture in folders and of patterns; of GIF the first frame is read."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".h264", ".h265", ".hevc", ".ivf", ".y4m"}
)
"""Of what is taken for a video."""
NOT_READ = frozenset(
    {".avif", ".heic", ".heif", ".jxl", ".psd", ".svg", ".ico", ".tga", ".exr", ".hdr", ".dng"}
    | {".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf"}
)
"""Of pictures in formats that are not read."""
RESULTS_FILE = "predictions.jsonl"
RESULTS_FOLDER = "annotated"
"""What ``dyninfer predict`` writes into its folder, so that it is no picture of anyone's."""
DRAWN_FOLDER = "pictures"
"""Of a bundle: what ONNX detectors find on the built-in photos."""


def find_images(folder: Path) -> list[Path]:
    """All pictures below ``folder``, by their suffix, sorted.

    Linked folders are searched, each once however it is reached. Hidden files and folders are left
    out, and annotated copies of ``dyninfer predict`` and of bundles.

    Raises:
        InputError: a folder cannot be read.
    """
    return search_folder(folder)[0]


def find_videos(folder: Path) -> list[Path]:
    """All videos below ``folder``, as :func:`find_images` finds pictures."""
    return sorted(path for path in _files_below(folder) if _is_file(path, VIDEO_SUFFIXES))


def search_folder(folder: Path) -> tuple[list[Path], Counter[str]]:
    """As :func:`find_images`, with the suffixes of pictures of other formats that lie there."""
    files = list(_files_below(folder))
    others = Counter(s for path in files if (s := path.suffix.lower()) in NOT_READ)
    return sorted(path for path in files if _is_file(path, SUFFIXES)), others


def match_images(pattern: str) -> list[Path]:
    """All pictures of a pattern such as ``photos/**/*.jpg``, and those below folders of it."""
    return _match_files(pattern, SUFFIXES)


def match_videos(pattern: str) -> list[Path]:
    """All videos of a pattern, as :func:`match_images` finds pictures."""
    return _match_files(pattern, VIDEO_SUFFIXES)


def _match_files(pattern: str, suffixes: frozenset[str]) -> list[Path]:
    """Files of these suffixes.

    What exists as it is written wins: a folder ``photos [1]`` is that folder, not a pattern.
    """
    known, parts = Path(), Path(pattern).parts
    while parts and (known / parts[0]).exists():
        known, parts = known / parts[0], parts[1:]
    literal = tuple(part.replace("[", "[[]") for part in parts)
    return _match(known, literal, suffixes) or _match(known, parts, suffixes)


def _match(known: Path, parts: tuple[str, ...], suffixes: frozenset[str]) -> list[Path]:
    find = find_images if suffixes is SUFFIXES else find_videos
    if "**" in parts:  # glob.glob would follow linked folders round and round
        below = find(known)
        return [path for path in below if _fits(path.relative_to(known).parts, parts)]
    whole = os.path.join(glob.escape(str(known)), *parts)  # noqa: PTH118  # a Path would drop "./"
    found: dict[Path, None] = {}
    for match in map(Path, sorted(glob.glob(whole))):  # noqa: PTH207  # Path.glob takes no absolute pattern
        files = find(match) if match.is_dir() else [match] * _is_file(match, suffixes)
        found |= dict.fromkeys(p for p in files if p.parent == known or not _is_ours(p.parent))
    return list(found)


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a pattern is that of a file, or of a folder above it."""
    if not parts:
        return True
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names)))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _files_below(folder: Path) -> Iterator[Path]:
    """Files that are not hidden; folders themselves come before links to them."""
    waiting, seen = deque([folder]), set[tuple[int, int]]()
    while waiting:
        here = waiting.popleft()
        try:
            found = here.stat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(here) as entries:
                named = sorted(entries, key=lambda entry: entry.name)
            for entry in named:
                path = here / entry.name
                if entry.name.startswith(".") or (here != folder and _is_ours(here)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.appendleft(path)
                elif path.is_dir():  # unlike the entry's own, it survives a link to itself
                    waiting.append(path)
                else:
                    yield path
        except OSError as error:
            raise InputError(f"the folder {here} cannot be read: {error.strerror}") from None


def _is_file(path: Path, suffixes: frozenset[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file()


def _is_ours(folder: Path) -> bool:
    """Whether what lies in a folder was drawn by dyninfer: of a run, or of an export."""
    marks = {RESULTS_FOLDER: RESULTS_FILE, DRAWN_FOLDER: "bundle.json"}
    return folder.name in marks and (folder.parent / marks[folder.name]).is_file()
