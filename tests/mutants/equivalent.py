"""Changes that change no answer, with the reason why no test can notice."""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A part of the lines that changed, by which a mutant is recognised."""

    module: str
    part: str
    reason: str


EQUIVALENT = (
    Equivalent(
        "dyninfer/images/prepare.py",
        "+    if size != (image.shape[",
        "resizing to the size that an image has copies it",
    ),
    Equivalent("dyninfer/results/nms.py", "+CHUNK = ", "cuts the work, which is about speed"),
    Equivalent("dyninfer/results/nms.py", "+_BLOCK = 128", "cuts the work, which is about speed"),
    Equivalent("dyninfer/results/nms.py", "+_DOUBT = 1.", "all is decided exactly, and slowly"),
    Equivalent("dyninfer/results/nms.py", "copy=True", "a copy is equal, and slower"),
)


def is_equivalent(module: str, change: str) -> bool:
    """Whether a change (lines with - and + before them) is known to change nothing."""
    return any(module == known.module and known.part in change for known in EQUIVALENT)
