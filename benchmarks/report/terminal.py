"""The one way to a terminal: text is shown as it is, and nothing in it is obeyed."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.progress import ProgressColumn, Task
from rich.text import Text

from dyninfer.plain_text import plain

_IN_ASCII = {"±": "+/-", "\N{EN DASH}": "-", "█": "#", "▏": "|", "µ": "u", "…": "..."}
_COMMAND = re.compile(r"(?<![^\s:])(dyninfer|python|pip|make) \S.*$")
_REPLACE = "dyninfer-replace"


class Terminal(Console):
    """A console that reads no markup, and shows what is given to it as text on one line.

    Whatever is printed, cells of tables among it, is given as ``str``, or made by :func:`styled`
    where parts of it have a style. In a window, long lines break between words, and a command that
    ends one is left whole, so that it can be copied; elsewhere lines are never broken.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    @property  # type: ignore[misc]  # nothing sets it
    def size(self) -> ConsoleDimensions:
        """Columns and lines as they are now; rich keeps those that were set at the import."""
        self._width = self._height = None
        found, columns = super().size, os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns):  # of a terminal without abilities, too
            return ConsoleDimensions(int(columns), found.height)
        return found

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does it, but that words are whole where lines break.

        With ``soft_wrap=False`` lines break wherever they are written to.
        """
        breaks = self.file.isatty() or options.pop("soft_wrap", None) is False
        if len(objects) == 1 and isinstance(objects[0], (str, Text)) and breaks:
            given = objects[0]
            text = self.render_str(given) if isinstance(given, str) else given
            for line in text.divide(_breaks(text.plain, self.width)):
                line.rstrip()
                super().print(line, **options)
        else:
            super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every ``str`` that is printed or measured comes through here."""
        return super().render_str(plain(text), **options)


def _breaks(text: str, width: int) -> list[int]:
    """Where lines begin, but for the first: at words, so that each fits if its words do."""
    command = _COMMAND.search(text)
    whole = command.start() if command else len(text)
    breaks, room = [], width
    for word in re.finditer(r"\S+\s*", text):
        if word.start() > whole:
            break
        end = len(text) if word.start() == whole else word.end()
        needed = cell_len(text[word.start() : end].rstrip())
        if needed > room and word.start():
            breaks.append(word.start())
            room = width
        room -= cell_len(text[word.start() : end])
    return breaks


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text of which some parts have a style, such as ``("passed", "green")``."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((plain(text), style) for text, style in pairs))


def never_fail_to_print() -> None:
    """Let this process print every character, whatever the encoding of its output.

    What an encoding lacks is replaced: a full block by ``#``, a letter by its number.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)


def prints_unicode() -> bool:
    """Whether the output's encoding has every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # nothing is decoded with it
    lost = error.object[error.start : error.end]
    shown = (_IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost)
    return "".join(shown), error.end


codecs.register_error(_REPLACE, _replace)


class DescriptionColumn(ProgressColumn):
    """What a progress bar is about, which may be the name of a stage."""

    def render(self, task: Task) -> Text:
        """The description, plain."""
        return styled(task.description)
