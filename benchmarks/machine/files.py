"""Small text files below ``/proc`` and ``/sys``: what they say, or why they cannot be read."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """What a file says, without blanks and zero bytes around it; nothing if it cannot be read.

    A device may refuse to be read although its file is there (a sensor that is switched off).
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """The number that a file holds; None if it cannot be read or holds anything else."""
    try:
        return float(read_text(path))
    except ValueError:
        return None


def why_unreadable(path: Path) -> str:
    """The reason in the system's words, such as ``Permission denied``; empty if it can be read."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def matching(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder by a glob pattern, in a fixed order with 2 before 10."""
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
