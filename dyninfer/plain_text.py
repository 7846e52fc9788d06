"""Text from elsewhere, made harmless: names in files, paths, arguments, messages of libraries.

Such text may hold what a terminal obeys (escape sequences), what changes the order in which it
is read (bidirectional overrides), or a line that looks like one of ours. Whatever is shown or
logged goes through :func:`plain`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_JOINERS = "\u200c\u200d"  # formatting characters that Persian, Hindi and emoji are written with
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, surrogates, line ends


def plain(text: str) -> str:
    """The text on one line; what is not to be seen becomes ``\\x1b``, ``\\n``, ``\\u202e``.

    Letters of every script, marks, symbols and spaces stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _unseen(character) else character for character in text)


def one_line(text: str) -> str:
    """A message of several lines on one, plain."""
    return plain(" ".join(text.split()))


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2,000 images``, ``2 classes``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"


def plain_json(text: str) -> str:
    """A JSON document of the same value, in which characters that are not to be seen are escaped.

    Such characters are inside of strings there, but for the line ends between them.
    """
    return "".join(
        _json_escaped(character) if character != "\n" and _unseen(character) else character
        for character in text
    )


def _unseen(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _UNSEEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
